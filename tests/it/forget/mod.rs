//! One person forgotten: everywhere, for good, beside everything else that goes on, and nobody else.

mod erasing;
mod guests;
mod interrupted;
mod person;
mod suppression;
pub mod tables;
mod test_data;
mod while_running;

use crate::log_contract::fixture::on_both;

on_both! {
    erasing:
        a_person_is_erased_everywhere_and_nobody_else_is
        what_the_log_has_dropped_is_erased_from_the_tables_and_the_stream
        a_dry_run_counts_the_same_and_changes_nothing;
    tables:
        a_rebuild_after_it_makes_the_same_tables
        what_an_older_event_of_a_stay_held_is_erased_too;
    interrupted:
        it_can_be_broken_off_anywhere_and_goes_on;
    while_running:
        what_was_not_published_yet_never_is
        the_stream_watch_and_the_audit_take_it_for_no_loss;
    test_data:
        test_data_is_deleted_everywhere_and_all_else_stays
        deleting_test_data_can_be_broken_off_anywhere_and_goes_on;
    guests:
        a_guest_of_whom_only_a_name_is_known_is_forgotten_in_one_meeting_or_by_a_stay;
    suppression:
        a_delivery_that_is_retried_restores_nothing
        a_host_does_not_come_back_by_enrichment;
}
