//! The analyst tables, on both databases.

pub mod as_json;
mod days;
mod over;
mod people;
pub mod projection;
mod questions;
mod role;
mod service;
mod upgrade;
mod views;
mod whole_runs;

use crate::log_contract::fixture::on_both;

on_both! {
    projection:
        the_order_and_the_pieces_in_which_events_come_do_not_matter
        a_cursor_that_follows_closely_goes_on_while_it_writes
        a_cursor_that_was_set_back_changes_nothing
        the_tables_move_only_while_the_lease_is_held
        what_was_backfilled_pairs_with_what_was_pushed
        a_recording_that_is_ready_has_its_details
        an_event_that_the_tables_never_take_is_set_aside_and_the_others_go_on
        a_rebuild_makes_the_same_tables_as_the_steps_did
        a_rebuild_that_was_broken_off_is_gone_on_with;
    upgrade:
        rows_of_an_earlier_version_are_kept_and_gone_on_with
        what_an_earlier_version_took_for_going_on_is_over
        who_is_one_person_is_found_out_of_the_tables_of_before;
    over:
        a_run_is_over_once_it_has_ended_or_another_of_its_number_has_started
        a_number_is_told_with_its_bookings_and_their_runs
        late_is_who_comes_after_the_plan_and_the_start;
    people:
        who_is_one_person_does_not_depend_on_the_order_across_runs
        what_is_learnt_of_a_person_later_is_so_in_earlier_runs_until_it_is_forgotten
        the_name_that_is_shown_is_the_last_one_and_guests_in_two_runs_at_once_are_two;
    days:
        the_days_are_those_of_the_setting_and_replicas_that_disagree_are_told
        minutes_count_on_the_day_on_which_they_were_spent
        the_page_says_what_the_views_say_in_the_zone_of_the_setting;
    questions:
        the_documented_queries_answer_what_they_say
        what_a_training_department_asks_is_answered;
    views:
        the_views_say_what_counting_by_hand_says
        a_condition_on_a_run_a_number_or_a_day_goes_by_an_index;
    service:
        events_are_taken_while_the_tables_cannot_be_written
        a_rebuild_beside_the_service_repairs_the_tables
        the_report_shows_where_the_cursor_is_without_a_bus;
    whole_runs:
        the_tables_of_a_shuffled_run_are_what_happened;
}
