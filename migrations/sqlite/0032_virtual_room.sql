-- In which cloud meeting room a run is held.
ALTER TABLE enrichments ADD COLUMN virtual_room TEXT;
ALTER TABLE meetings ADD COLUMN virtual_room TEXT;

DROP TRIGGER meetings_enriched;
CREATE TRIGGER meetings_enriched AFTER INSERT ON meetings
    WHEN EXISTS (SELECT 1 FROM enrichments
                  WHERE subscriber_id = new.subscriber_id AND meeting_uuid = new.meeting_uuid)
BEGIN
    UPDATE meetings SET (subject, scheduled_start_at, scheduled_end_at, host, corp_id, host_user_uuid, conference_type,
                         webinar, virtual_room) =
           (SELECT subject, scheduled_start_at, scheduled_end_at, host, corp_id, host_user_uuid, conference_type, webinar,
                   virtual_room
              FROM enrichments WHERE subscriber_id = new.subscriber_id AND meeting_uuid = new.meeting_uuid)
     WHERE subscriber_id = new.subscriber_id AND meeting_uuid = new.meeting_uuid;
END;
