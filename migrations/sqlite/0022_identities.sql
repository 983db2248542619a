-- By person only accounts with a number are looked for, and those are few.
DROP INDEX identities_person;
CREATE INDEX identities_account ON identities (person) WHERE kind = 'number_account';
