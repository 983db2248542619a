//! The promises of `convoke_log::Log`, kept by both back ends: one suite, run on each.
//!
//! What only one of them can promise is in [`only_sqlite`] and [`only_postgres`].

pub mod fixture;
mod log;
mod only_postgres;
mod only_sqlite;
mod reading;
mod retention;
mod schema;
mod work_lists;

use fixture::on_both;

on_both! {
    log:
        a_batch_is_answered_in_its_order_and_read_back
        a_duplicate_is_known_after_the_log_was_opened_again
        the_places_of_a_batch_are_reported_only_if_they_follow_one_another
        copies_appended_at_once_by_several_replicas_are_stored_once
        a_reader_never_finds_a_smaller_number_later
        odd_values_are_stored_and_kept_verbatim
        an_unreadable_body_is_in_the_quarantine_once
        a_lease_is_refused_to_others_until_it_ends
        a_lease_is_handed_over_to_who_claims_it
        two_replicas_that_ask_at_once_get_one_lease
        a_lease_from_before_the_clock_was_set_back_has_ended
        what_is_set_aside_twice_is_listed_once
        lag_is_exact_up_to_ten_thousand_and_no_less_beyond
        a_selection_is_by_time_type_meeting_and_place
        rows_are_counted_and_found_by_id
        places_are_reported_of_the_ids_that_are_known
        a_heartbeat_is_read_back_with_its_age_and_a_probe_is_none
        a_note_is_kept_until_it_is_replaced
        an_append_that_nobody_waits_for_any_more_leaves_the_log_usable
        handshakes_leave_the_newest_time_and_their_number
        a_probe_is_noted_only_if_it_is_expected_and_is_no_handshake_of_the_platform;
    work_lists:
        finished_recordings_are_found_between_two_places
        recordings_are_queued_once_and_with_the_cursors_move_or_not_at_all
        the_newest_recordings_come_first_and_before_them_what_is_to_be_appended
        a_recording_is_settled_by_whoever_asked_first
        what_was_put_off_or_given_up_by_a_clock_that_was_days_ahead_is_due_once_it_is_right
        a_further_recording_of_a_run_is_asked_for_and_what_was_made_is_still_appended
        runs_are_enriched_once_the_newest_first_and_cancelled_ones_are_not
        a_run_that_changes_is_enriched_again_and_a_row_made_anew_has_what_was_known;
    reading:
        every_list_is_whole_in_pages_of_either_order
        a_run_has_what_was_fetched_of_it
        events_are_filtered_by_whatever_they_are_asked_for
        tables_are_filtered_by_whatever_they_are_asked_for
        a_person_is_found_by_any_exact_handle
        what_arrives_between_two_pages_moves_nothing
        hostile_text_is_only_text
        a_row_in_memory_is_listed_as_the_log_lists_it
        the_quarantine_is_listed_without_its_bodies;
    retention:
        what_was_received_within_the_retention_stays_however_old_it_is
        a_clock_that_was_set_forward_deletes_nothing_and_a_young_event_makes_it_go_on
        a_cursor_that_reads_no_more_holds_retention_back_and_is_named
        old_entries_of_the_quarantine_are_deleted_unless_they_are_kept_for_ever
        a_count_that_was_set_back_gives_no_place_that_a_cursor_has_passed
        a_row_that_the_database_swallows_is_not_said_to_be_kept;
    schema:
        a_database_that_is_not_migrated_is_unavailable
        migrating_again_changes_nothing_and_keeps_the_rows
        several_processes_migrate_at_once
        a_schema_of_a_newer_version_is_refused
        somebody_elses_database_is_refused_and_left_alone;
}
