//! Snapshots of runs.

use async_trait::async_trait;

use super::Backend;
use crate::{LogError, RunSnapshot, Snapshots, StaySnapshot};

#[async_trait]
impl Snapshots for Backend {
    async fn known_runs(&self, uuids: &[String]) -> Result<Vec<RunSnapshot>, LogError> {
        let among = self.dialect().among("$1");
        let sql = format!(
            "SELECT subscriber_id, meeting_uuid, meeting_id, meeting_cycle_sub_id, started_at, ended_at,
                    CASE WHEN status = 'live' AND NOT over THEN last_event_at END AS live_at, recordings
               FROM meetings WHERE meeting_uuid {among} ORDER BY last_event_at, subscriber_id"
        );
        self.all(self.query(sql).bind_list(uuids)).await
    }

    async fn known_stays(&self, meeting_uuid: &str) -> Result<Vec<StaySnapshot>, LogError> {
        let stays = "SELECT participant_id, user_uuid, account, display_name, call_number, user_agent, role, joined_at,
                            left_at, closed_by = 'left' AS closed_by_left
                       FROM attendance WHERE meeting_uuid = $1
                      ORDER BY joined_at NULLS FIRST, closed_by = 'left' DESC, subscriber_id, stay_id";
        self.all(self.query(stays).bind(meeting_uuid)).await
    }
}
