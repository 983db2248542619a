// Counts who is in which meeting, and for how long, from Convoke's stream. Ends with SIGTERM, and goes on where it stopped.
//
//	go mod download && go build -o consumer .      # needs a C compiler, for SQLite
//	NATS_URL=nats://127.0.0.1:4222 ./consumer
//	sqlite3 -box attendance.db 'SELECT * FROM presence'
//
// Also from the environment: NATS_STREAM (MEETINGS), SUBJECT_PREFIX (meetings), NATS_DURABLE (attendance), DATABASE
// (attendance.db). Processes of one durable name share the work, and have to share the database.
//
// Every event is delivered at least once, in any order. Here is what makes that exactly once for the table: an event's id is
// kept in the same transaction as what the event did, and the message is acknowledged after that. The counts only add up, so
// the order does not matter.
package main

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	_ "github.com/mattn/go-sqlite3"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	batch  = 100
	latest = 253_402_300_799_999 // the end of the year 9999, in milliseconds
)

const schema = `
	CREATE TABLE IF NOT EXISTS done (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
	CREATE TABLE IF NOT EXISTS presence (
		source TEXT NOT NULL, meeting TEXT NOT NULL, person TEXT NOT NULL, name TEXT,
		devices INTEGER NOT NULL, milliseconds INTEGER NOT NULL,
		PRIMARY KEY (source, meeting, person)
	) WITHOUT ROWID`

// The types are those of asyncapi.yaml, as far as they are read here. Zero values are null, masked, or not sent.

type cloudEvent struct {
	ID        string          `json:"id"`
	Source    string          `json:"source"`
	Type      string          `json:"type"`
	Subject   string          `json:"subject"`
	MeetingID string          `json:"meetingid"`
	Data      *attendanceData `json:"data"`
}

type attendanceData struct {
	AttendeeInfo *attendeeInfo `json:"attendeeInfo"`
}

type attendeeInfo struct {
	UserUUID      string  `json:"userUUID"`
	Account       string  `json:"account"`
	ParticipantID string  `json:"participantID"`
	DisplayName   *string `json:"displayName"`
	JoinTime      int64   `json:"joinTime"`
	LeftTime      int64   `json:"leftTime"`
	CallNumber    string  `json:"callNumber"`
}

// change is what an event does to the table.
type change struct {
	eventID, source, meeting, person string
	name                             *string
	devices, milliseconds            int64
}

// changeOf fails if this is no event that this consumer can use, however often it is delivered. encoding/json refuses what is of
// another type; of half a surrogate pair it makes U+FFFD.
func changeOf(body []byte) (*change, error) {
	var event cloudEvent
	if err := json.Unmarshal(body, &event); err != nil {
		return nil, err
	}
	if event.ID == "" || event.Data == nil || event.Data.AttendeeInfo == nil {
		return nil, errors.New("id, data or attendeeInfo is missing")
	}
	attendee := event.Data.AttendeeInfo
	result := &change{
		eventID: event.ID,
		source:  event.Source,
		meeting: cmp.Or(event.Subject, event.MeetingID),
		person:  cmp.Or(attendee.UserUUID, attendee.Account, attendee.CallNumber, attendee.ParticipantID),
		name:    attendee.DisplayName,
	}
	if result.person == "" || result.meeting == "" {
		return nil, errors.New("it does not say who, or where")
	}
	joined, left := attendee.JoinTime, attendee.LeftTime
	if min(joined, left) < 0 || max(joined, left) > latest {
		return nil, errors.New("a time is out of range")
	}
	switch event.Type {
	case "com.huaweicloud.meeting.join":
		result.devices = 1
	case "com.huaweicloud.meeting.left":
		result.devices = -1
		if joined > 0 {
			result.milliseconds = max(left-joined, 0)
		}
	default:
		return nil, fmt.Errorf("it is of type %q", event.Type)
	}
	return result, nil
}

func (c *change) apply(ctx context.Context, database *sql.DB) error {
	transaction, err := database.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer transaction.Rollback() // does nothing after a commit
	result, err := transaction.ExecContext(ctx, "INSERT OR IGNORE INTO done VALUES (?)", c.eventID)
	if err != nil {
		return err
	}
	if added, err := result.RowsAffected(); err != nil || added == 0 {
		return err // nil: a copy
	}
	_, err = transaction.ExecContext(ctx, `
		INSERT INTO presence VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET name = coalesce(excluded.name, name),
			devices = devices + excluded.devices, milliseconds = milliseconds + excluded.milliseconds`,
		c.source, c.meeting, c.person, c.name, c.devices, c.milliseconds)
	if err != nil {
		return err
	}
	return transaction.Commit()
}

func handle(message jetstream.Msg, database *sql.DB) error {
	metadata, err := message.Metadata()
	if err != nil {
		return err
	}
	log := slog.With("message", metadata.Sequence.Stream)
	change, err := changeOf(message.Data())
	if err != nil {
		log.Warn("terminated", "reason", err)
		return message.TermWithReason(err.Error())
	}
	// Not the context that SIGTERM ends: what has begun is finished.
	if err := change.apply(context.Background(), database); err != nil {
		delay := time.Second << min(metadata.NumDelivered, 6)
		log.Error("tried again", "in", delay, "error", err)
		return message.NakWithDelay(delay)
	}
	return message.Ack()
}

func setting(name, otherwise string) string {
	return cmp.Or(os.Getenv(name), otherwise)
}

func run(ctx context.Context) error {
	stream, durable := setting("NATS_STREAM", "MEETINGS"), setting("NATS_DURABLE", "attendance")
	prefix := setting("SUBJECT_PREFIX", "meetings")

	database, err := sql.Open("sqlite3", "file:"+setting("DATABASE", "attendance.db")+"?_txlock=immediate&_busy_timeout=5000")
	if err != nil {
		return err
	}
	defer database.Close()
	if _, err := database.ExecContext(ctx, schema); err != nil {
		return err
	}

	connection, err := nats.Connect(setting("NATS_URL", nats.DefaultURL), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer connection.Close() // sends what was acknowledged
	js, err := jetstream.New(connection)
	if err != nil {
		return err
	}
	// Makes it, or finds it as it is.
	consumer, err := js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{
		Durable:        durable,
		FilterSubjects: []string{prefix + ".*.meeting.join.>", prefix + ".*.meeting.left.>"},
		AckPolicy:      jetstream.AckExplicitPolicy,
		AckWait:        30 * time.Second,
		MaxAckPending:  2 * batch,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(batch))
	if err != nil {
		return err
	}
	// What was pulled and is not handled comes again after AckWait.
	defer messages.Stop()

	slog.Info("reading", "stream", stream, "as", durable)
	for {
		message, err := messages.Next(jetstream.NextContext(ctx))
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := handle(message, database); err != nil {
			return err
		}
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		slog.Error("ended", "error", err)
		os.Exit(1)
	}
}
