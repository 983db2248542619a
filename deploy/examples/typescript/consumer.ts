// Counts who is in which meeting, and for how long, from Convoke's stream. Ends with SIGTERM, and goes on where it stopped.
//
//     npm ci                                              # Node.js 24 or newer
//     NATS_URL=nats://127.0.0.1:4222 node consumer.ts
//     sqlite3 -box attendance.db 'SELECT * FROM presence'
//
// Also from the environment: NATS_STREAM (MEETINGS), SUBJECT_PREFIX (meetings), NATS_DURABLE (attendance), ACK_WAIT (30 s: what
// is not acknowledged by then comes again), DATABASE (attendance.db). Processes of one durable name share the work, and have to share the database.
//
// Every event is delivered at least once, in any order. Here is what makes that exactly once for the table: an event's id is
// kept in the same transaction as what the event did, and the message is acknowledged after that. The counts only add up, so
// the order does not matter.

import { DatabaseSync } from "node:sqlite";

import { AckPolicy, type JsMsg, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, nanos } from "@nats-io/transport-node";

const BATCH = 100;
/** The end of the year 9999, in milliseconds. */
const LATEST = 253_402_300_799_999;

// The types are those of asyncapi.yaml. Null is what the platform does not tell; masked members are missing.

export interface MeetingInfo {
  meetingID?: string | null;
  meetingUUID?: string;
  meetingCycleSubID?: string;
}

export interface AttendeeInfo {
  userUUID?: string | null;
  userAgent?: string | null;
  account?: string | null;
  participantID?: string | null;
  displayName?: string | null;
  joinTime?: number;
  leftTime?: number;
  role?: string | null;
  callNumber?: string | null;
}

export interface AttendanceData {
  meetingInfo: MeetingInfo;
  attendeeInfo?: AttendeeInfo;
  /** The same, as one edition of the platform's manual prints it. */
  attendeelInfo?: AttendeeInfo;
}

export interface CloudEvent<Data = unknown> {
  specversion: string;
  id: string;
  source: string;
  type: string;
  subject?: string;
  time: string;
  datacontenttype: string;
  sequence: string;
  recordedtime: string;
  meetingid?: string;
  origin: string;
  data: Data;
}

/** No event that this consumer can use, however often it is delivered. */
class Unusable extends Error {}

type Shape = Record<string, "string" | "string?" | "time?" | "object">;

// As the types above, for what the compiler cannot see: what really came. What is not read here is not checked.
const EVENT = { id: "string", source: "string", type: "string", subject: "string?", meetingid: "string?", data: "object" } as const;
const DATA = { meetingInfo: "object" } as const;
const ATTENDEE = {
  userUUID: "string?",
  account: "string?",
  participantID: "string?",
  displayName: "string?",
  joinTime: "time?",
  leftTime: "time?",
  callNumber: "string?",
} as const;

/** Throws unless `value` is an object with these members. Others may come at any time. */
function check(value: unknown, shape: Shape, name: string): asserts value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Unusable(`${name} is no object`);
  for (const [member, kind] of Object.entries(shape)) {
    const found = (value as Record<string, unknown>)[member];
    if (found === undefined || found === null) {
      if (!kind.endsWith("?")) throw new Unusable(`${member} is missing`);
    } else if (kind.startsWith("string")) {
      if (typeof found !== "string") throw new Unusable(`${member} is no string`);
      if (!found.isWellFormed()) throw new Unusable(`${member} holds half a surrogate pair`);
    } else if (kind.startsWith("time")) {
      if (!Number.isSafeInteger(found) || (found as number) < 0 || (found as number) > LATEST) throw new Unusable(`${member} is no time`);
    } else if (typeof found !== "object") {
      throw new Unusable(`${member} is no object`);
    }
  }
}

function parsed(body: string): CloudEvent<AttendanceData> {
  let event: unknown;
  try {
    event = JSON.parse(body);
  } catch (error) {
    throw new Unusable(`no JSON: ${error}`);
  }
  check(event, EVENT, "the event");
  check(event["data"], DATA, "data");
  check(attendeeOf(event["data"]), ATTENDEE, "attendeeInfo");
  return event as unknown as CloudEvent<AttendanceData>;
}

function attendeeOf<Attendee>(data: { attendeeInfo?: Attendee; attendeelInfo?: Attendee }): Attendee | undefined {
  return data.attendeeInfo ?? data.attendeelInfo;
}

/** What was made of the events, and which. */
class Store {
  readonly #database: DatabaseSync;

  constructor(file: string) {
    this.#database = new DatabaseSync(file);
    this.#database.exec(`
      CREATE TABLE IF NOT EXISTS done (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS presence (
        source TEXT NOT NULL, meeting TEXT NOT NULL, person TEXT NOT NULL, name TEXT,
        devices INTEGER NOT NULL, milliseconds INTEGER NOT NULL,
        PRIMARY KEY (source, meeting, person)
      ) WITHOUT ROWID;
    `);
  }

  apply(event: CloudEvent<AttendanceData>): void {
    const attendee = attendeeOf(event.data);
    if (!attendee) throw new Unusable("attendeeInfo is missing");
    const person = attendee.userUUID || attendee.account || attendee.callNumber || attendee.participantID;
    const meeting = event.subject || event.meetingid;
    if (!person || !meeting) throw new Unusable("it does not say who, or where");
    const { devices, milliseconds } = change(event.type, attendee);
    this.#transaction(() => {
      if (this.#database.prepare("INSERT OR IGNORE INTO done VALUES (?)").run(event.id).changes === 0) return; // a copy
      this.#database
        .prepare(
          `INSERT INTO presence VALUES (?, ?, ?, ?, ?, ?)
           ON CONFLICT DO UPDATE SET name = coalesce(excluded.name, name),
             devices = devices + excluded.devices, milliseconds = milliseconds + excluded.milliseconds`,
        )
        .run(event.source, meeting, person, attendee.displayName ?? null, devices, milliseconds);
    });
  }

  close(): void {
    this.#database.close();
  }

  #transaction(work: () => void): void {
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      work();
      this.#database.exec("COMMIT");
    } catch (error) {
      // SQLite has rolled back by itself if its disk is full.
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }
}

function change(type: string, { joinTime: joined = 0, leftTime: left = 0 }: AttendeeInfo): { devices: number; milliseconds: number } {
  switch (type) {
    case "com.huaweicloud.meeting.join":
      return { devices: 1, milliseconds: 0 };
    case "com.huaweicloud.meeting.left":
      return { devices: -1, milliseconds: joined > 0 ? Math.max(left - joined, 0) : 0 };
    default:
      throw new Unusable(`it is of type ${JSON.stringify(type)}`);
  }
}

function handle(message: JsMsg, store: Store): void {
  try {
    store.apply(parsed(message.string()));
    message.ack();
  } catch (error) {
    if (error instanceof Unusable) {
      console.warn(`message ${message.seq} is terminated: ${error.message}`);
      message.term(error.message);
    } else {
      const seconds = 2 ** Math.min(message.info.deliveryCount, 6);
      console.error(`message ${message.seq} is tried again in ${seconds} s: ${error}`);
      message.nak(seconds * 1_000);
    }
  }
}

async function main(): Promise<void> {
  const setting = (name: string, otherwise: string) => process.env[name] || otherwise;
  const stream = setting("NATS_STREAM", "MEETINGS");
  const durable = setting("NATS_DURABLE", "attendance");
  const prefix = setting("SUBJECT_PREFIX", "meetings");
  const store = new Store(setting("DATABASE", "attendance.db"));

  const connection = await connect({ servers: setting("NATS_URL", "nats://127.0.0.1:4222"), maxReconnectAttempts: -1 });
  // Makes it, or finds it as it is.
  await (await jetstreamManager(connection)).consumers.add(stream, {
    durable_name: durable,
    filter_subjects: [`${prefix}.*.meeting.join.>`, `${prefix}.*.meeting.left.>`],
    ack_policy: AckPolicy.Explicit,
    ack_wait: nanos(Number(setting("ACK_WAIT", "30")) * 1_000),
    max_ack_pending: 2 * BATCH,
  });
  const consumer = await jetstream(connection).consumers.get(stream, durable);
  const messages = await consumer.consume({ max_messages: BATCH, abort_on_missing_resource: true });

  // What was pulled and is not handled comes again after `ack_wait`.
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => messages.stop());
  console.info(`reading ${stream} as ${durable}`);
  for await (const message of messages) handle(message, store);
  await connection.drain(); // after what was acknowledged is sent
  store.close();
}

await main();
