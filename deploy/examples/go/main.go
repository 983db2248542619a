// Counts who is in which meeting, and for how long, from Convoke's stream. Ends with SIGTERM, and goes on where it stopped.
//
//	go build -o consumer .
//	NATS_URL=nats://127.0.0.1:4222 ./consumer
//	./consumer show                                # when it is stopped: bbolt's file has one user at a time
//
// Also from the environment: NATS_STREAM (MEETINGS), SUBJECT_PREFIX (meetings), NATS_DURABLE (attendance), ACK_WAIT (30 s: what
// is not acknowledged by then comes again), DATABASE (attendance.db).
//
// Every event is delivered at least once, in any order. Here is what makes that exactly once for the table: an event's id is
// kept in the same transaction as what the event did, and the message is acknowledged after that. The counts only add up, so
// the order does not matter.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.etcd.io/bbolt"
)

const (
	batch  = 100
	latest = 253_402_300_799_999 // the end of the year 9999, in milliseconds
)

var (
	done     = []byte("done")     // ids of events
	presence = []byte("presence") // what was made of them
)

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
	// The same, as one edition of the platform's manual prints it.
	AttendeelInfo *attendeeInfo `json:"attendeelInfo"`
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

// key is who is counted, and where.
type key struct {
	Source  string `json:"source"`
	Meeting string `json:"meeting"`
	Person  string `json:"person"`
}

// counts are what is counted. They only add up.
type counts struct {
	Name         *string `json:"name"`
	Devices      int64   `json:"devices"`
	Milliseconds int64   `json:"milliseconds"`
}

// change is what an event does.
type change struct {
	eventID string
	key     key
	counts  counts
}

// changeOf fails if this is no event that this consumer can use, however often it is delivered. encoding/json refuses what is of
// another type; of half a surrogate pair it makes U+FFFD.
func changeOf(body []byte) (*change, error) {
	var event cloudEvent
	if err := json.Unmarshal(body, &event); err != nil {
		return nil, err
	}
	if event.ID == "" || event.Data == nil {
		return nil, errors.New("id or data is missing")
	}
	attendee := cmp.Or(event.Data.AttendeeInfo, event.Data.AttendeelInfo)
	if attendee == nil {
		return nil, errors.New("attendeeInfo is missing")
	}
	result := &change{
		eventID: event.ID,
		key: key{
			Source:  event.Source,
			Meeting: cmp.Or(event.Subject, event.MeetingID),
			Person:  cmp.Or(attendee.UserUUID, attendee.Account, attendee.CallNumber, attendee.ParticipantID),
		},
		counts: counts{Name: attendee.DisplayName},
	}
	if result.key.Person == "" || result.key.Meeting == "" {
		return nil, errors.New("it does not say who, or where")
	}
	joined, left := attendee.JoinTime, attendee.LeftTime
	if min(joined, left) < 0 || max(joined, left) > latest {
		return nil, errors.New("a time is out of range")
	}
	switch event.Type {
	case "com.huaweicloud.meeting.join":
		result.counts.Devices = 1
	case "com.huaweicloud.meeting.left":
		result.counts.Devices = -1
		if joined > 0 {
			result.counts.Milliseconds = max(left-joined, 0)
		}
	default:
		return nil, fmt.Errorf("it is of type %q", event.Type)
	}
	return result, nil
}

func (c *change) apply(database *bbolt.DB) error {
	return database.Update(func(transaction *bbolt.Tx) error {
		ids, table := transaction.Bucket(done), transaction.Bucket(presence)
		if ids.Get([]byte(c.eventID)) != nil {
			return nil // a copy
		}
		if err := ids.Put([]byte(c.eventID), []byte{1}); err != nil {
			return err
		}
		at, err := json.Marshal(c.key)
		if err != nil {
			return err
		}
		var now counts
		if before := table.Get(at); before != nil {
			if err := json.Unmarshal(before, &now); err != nil {
				return err
			}
		}
		now.Name = cmp.Or(c.counts.Name, now.Name)
		now.Devices += c.counts.Devices
		now.Milliseconds += c.counts.Milliseconds
		row, err := json.Marshal(now)
		if err != nil {
			return err
		}
		return table.Put(at, row)
	})
}

func handle(message jetstream.Msg, database *bbolt.DB) error {
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
	if err := change.apply(database); err != nil {
		delay := time.Second << min(metadata.NumDelivered, 6)
		log.Error("tried again", "in", delay, "error", err)
		return message.NakWithDelay(delay)
	}
	return message.Ack()
}

func setting(name, otherwise string) string {
	return cmp.Or(os.Getenv(name), otherwise)
}

func open() (*bbolt.DB, error) {
	database, err := bbolt.Open(setting("DATABASE", "attendance.db"), 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	return database, database.Update(func(transaction *bbolt.Tx) error {
		for _, bucket := range [][]byte{done, presence} {
			if _, err := transaction.CreateBucketIfNotExists(bucket); err != nil {
				return err
			}
		}
		return nil
	})
}

// show prints the table, an array of who and what a line.
func show() error {
	database, err := open()
	if err != nil {
		return err
	}
	defer database.Close()
	return database.View(func(transaction *bbolt.Tx) error {
		return transaction.Bucket(presence).ForEach(func(at, row []byte) error {
			_, err := fmt.Printf("[%s,%s]\n", at, row)
			return err
		})
	})
}

func run(ctx context.Context) error {
	stream, durable := setting("NATS_STREAM", "MEETINGS"), setting("NATS_DURABLE", "attendance")
	prefix := setting("SUBJECT_PREFIX", "meetings")

	ackWait, err := time.ParseDuration(setting("ACK_WAIT", "30") + "s")
	if err != nil {
		return fmt.Errorf("ACK_WAIT: %w", err)
	}
	database, err := open()
	if err != nil {
		return err
	}
	defer database.Close()

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
		AckWait:        ackWait,
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
	err := error(nil)
	if len(os.Args) > 1 && os.Args[1] == "show" {
		err = show()
	} else {
		err = run(ctx)
	}
	if err != nil {
		slog.Error("ended", "error", err)
		os.Exit(1)
	}
}
