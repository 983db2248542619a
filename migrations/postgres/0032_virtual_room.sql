-- In which cloud meeting room a run is held.
ALTER TABLE enrichments ADD COLUMN virtual_room text;
ALTER TABLE meetings ADD COLUMN virtual_room text;
COMMENT ON COLUMN meetings.virtual_room IS 'The number of the cloud meeting room, or the personal number, that it is held in, as the platform says, if enriched.';

CREATE OR REPLACE FUNCTION convoke_enrich_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE meetings m
       SET subject = e.subject, scheduled_start_at = e.scheduled_start_at, scheduled_end_at = e.scheduled_end_at,
           host = e.host, corp_id = e.corp_id, host_user_uuid = e.host_user_uuid, conference_type = e.conference_type,
           webinar = e.webinar, virtual_room = e.virtual_room
      FROM made JOIN enrichments e ON e.subscriber_id = made.subscriber_id AND e.meeting_uuid = made.meeting_uuid
     WHERE m.subscriber_id = made.subscriber_id AND m.meeting_uuid = made.meeting_uuid;
    RETURN NULL;
END $$;
