"""Which tests show that each fault is survived: the table that `make faults` runs and reports by."""

_CHAT = "tests/faults/test_chat_faults.py"
_KAFKA = "tests/faults/test_kafka_faults.py"
_CLUSTER = "tests/faults/test_cluster_faults.py"
_DISK = "tests/faults/test_disk_faults.py"
_SERVICE = "tests/services/chat/test_faults.py"
_LOCAL = "tests/eventlog/test_local.py"
_RECOVERY = "tests/eventlog/test_recovery.py"
_TOPICS = "tests/eventlog/test_kafka.py"
_LOOP = "tests/training/test_loop.py"
_CHECKPOINT = "tests/training/test_checkpoint.py"
_INTAKE = "tests/training/test_intake.py"
_LEASE = "tests/training/lease/test_file.py"
_JOIN = "tests/feedback/test_join.py"

ROWS: dict[int, tuple[str, ...]] = {
    # The chat service
    1: (f"{_CHAT}::test_killed_in_mid_stream_what_was_acknowledged_is_there_and_the_client_asks_again",),
    2: (f"{_CHAT}::test_killed_between_fsync_and_reply_the_vote_sent_again_is_one_event",),
    3: (
        f"{_CHAT}::test_sigterm_under_load_lets_everybody_finish_and_loses_nothing",
        f"{_CHAT}::test_after_sigterm_an_answer_without_end_is_cut_and_logged",
    ),
    4: (f"{_CHAT}::test_stopped_it_is_not_ready_and_going_on_it_has_lost_nothing",),
    5: (
        f"{_CHAT}::test_what_a_client_saw_before_it_left_is_logged_and_can_be_rated",
        f"{_SERVICE}::test_a_client_that_leaves_a_stream",
        f"{_SERVICE}::test_a_client_that_leaves_before_a_whole_answer",
    ),
    # The spool
    6: (
        f"{_DISK}::test_a_full_spool_refuses_votes_and_lets_people_chat",
        f"{_LOCAL}::test_a_full_disk_refuses_and_later_takes_again",
        f"{_SERVICE}::test_chat_goes_on_without_the_log",
        "tests/services/chat/feedback/test_feedback_route.py::test_feedback_is_not_acknowledged_without_the_log",
    ),
    7: (f"{_LOCAL}::test_a_failed_fsync_is_not_acknowledged_and_its_segment_never_used_again",),
    8: (
        f"{_RECOVERY}::test_any_torn_tail_is_cut_and_the_log_goes_on",
        f"{_RECOVERY}::test_what_was_acknowledged_survives_kill_nine",
        "tests/faults/test_auditor.py::test_no_power_failure_takes_an_acknowledged_vote",
    ),
    9: (
        f"{_CHAT}::test_a_second_service_on_the_same_spool_ends_and_says_who_holds_it",
        f"{_LOCAL}::test_a_second_writer_is_refused_and_told_who_holds_the_log",
    ),
    # Kafka
    10: (f"{_KAFKA}::test_down_at_the_start_chat_serves_and_later_kafka_gets_everything",),
    11: (
        f"{_KAFKA}::test_a_line_that_is_cut_fills_the_spool_and_empties_it_later",
        f"{_TOPICS}::test_nothing_is_lost_while_the_broker_is_down_or_killed",
    ),
    12: (f"{_CLUSTER}::test_without_one_of_three_brokers_shipping_goes_on",),
    13: (f"{_CLUSTER}::test_without_two_of_three_brokers_chat_serves_and_the_spool_waits",),
    14: (
        f"{_CLUSTER}::test_what_a_broker_that_hangs_never_confirmed_is_sent_to_another",
        f"{_TOPICS}::test_deliveries_to_a_broker_that_hangs_are_made_again",
    ),
    15: (f"{_CLUSTER}::test_while_leaders_move_everything_arrives_in_order",),
    16: (
        f"{_KAFKA}::test_lost_replies_make_records_come_twice_and_count_once",
        f"{_INTAKE}::test_what_a_forwarder_sent_again_counts_once",
    ),
    17: (f"{_KAFKA}::test_a_line_of_two_seconds_delays_no_acknowledgement",),
    18: (f"{_KAFKA}::test_a_line_that_is_reset_every_megabyte_completes",),
    19: (
        f"{_TOPICS}::test_a_position_that_retention_passed_is_lost",
        f"{_LOOP}::test_records_that_were_removed_too_early_stop_the_trainer",
    ),
    20: (
        f"{_TOPICS}::test_a_topic_made_anew_is_not_the_same_log",
        f"{_LOOP}::test_another_log_is_refused_until_an_operator_accepts_what_is_missing",
    ),
    # The trainer
    25: (
        f"{_LOOP}::test_killed_at_a_durable_step_it_trains_exactly_once",
        f"{_LOOP}::test_killed_by_the_system_at_random_moments_it_trains_exactly_once",
        f"{_LOOP}::test_killed_between_the_commit_and_the_publication_it_publishes_after_the_restart",
        "tests/training/test_publication.py::test_at_whatever_durable_step_it_was_killed_doing_it_again_completes_it",
        "tests/test_circle_kafka.py::test_votes_reach_the_trainer_through_kafka_once_though_it_is_killed",
    ),
    26: (
        f"{_CHECKPOINT}::test_a_save_that_was_cut_short_is_ignored_and_cleared_away",
        f"{_CHECKPOINT}::test_the_manifest_comes_last",
    ),
    27: (
        f"{_CHECKPOINT}::test_a_damaged_part_is_mended_also_where_all_checkpoints_share_it",
        f"{_CHECKPOINT}::test_a_flipped_bit_that_nothing_mends_falls_back_to_the_one_before",
        f"{_CHECKPOINT}::test_a_damaged_ledger_segment_falls_back",
        f"{_LOOP}::test_a_damaged_checkpoint_falls_back_to_the_one_before",
    ),
    28: (
        f"{_DISK}::test_a_trainer_without_room_for_a_checkpoint_pauses_and_goes_on_by_itself",
        f"{_CHECKPOINT}::test_a_full_disk_is_said_and_the_save_can_be_made_again",
    ),
    29: (
        f"{_LEASE}::test_a_trainer_that_stood_still_and_was_replaced_ends_when_it_wakes_up",
        f"{_LEASE}::test_a_second_trainer_is_kept_out_by_name",
        f"{_LEASE}::test_the_lower_epoch_saves_nothing",
        f"{_LEASE}::test_the_lower_epoch_changes_no_version",
    ),
    # What the log holds
    32: (
        f"{_LOOP}::test_feedback_that_leads_nowhere_is_counted",
        f"{_TOPICS}::test_what_cannot_be_used_goes_to_its_topic_with_place_and_reason",
    ),
    33: (
        "tests/test_wire.py::test_what_is_no_event_says_why",
        f"{_TOPICS}::test_what_cannot_be_used_goes_to_its_topic_with_place_and_reason",
    ),
    34: (
        f"{_JOIN}::test_feedback_meets_its_answer_whichever_comes_first",
        f"{_JOIN}::test_any_order_and_any_restart_give_the_same_and_lose_nothing",
    ),
    35: (
        f"{_LOOP}::test_feedback_that_leads_nowhere_is_counted",
        f"{_JOIN}::test_what_the_window_passed_is_orphaned_once",
        f"{_TOPICS}::test_what_cannot_be_used_goes_to_its_topic_with_place_and_reason",
    ),
    36: (
        f"{_LOOP}::test_the_same_vote_sent_again_counts_once",
        f"{_INTAKE}::test_the_same_key_a_hundred_times_counts_once_before_and_after_it_was_taken",
        "tests/services/chat/feedback/test_feedback_route.py::test_a_vote_sent_again_is_the_same_event",
    ),
    41: (
        f"{_JOIN}::test_a_clock_that_was_put_back_closes_nothing",
        f"{_JOIN}::test_one_clock_that_is_a_year_ahead_closes_nothing",
    ),
}
"""Number of the fault → pytest's ids of the tests."""
