# What the parts have in common. Sourced by parts.sh.
# shellcheck shell=bash disable=SC2034,SC2154

top=$PWD
post() { python3 "$top/tests/packages/post.py" "$@"; }
events_url=http://127.0.0.1:8080/openapi/meetingevent
# Longer than anything takes that takes long on a busy machine.
patience=120
passed=0
part_began=0

part() { printf '\n── %s\n' "$*"; part_began=$SECONDS; }
ok() { passed=$((passed + 1)); printf 'ok    %s (%d s)\n' "$*" $((SECONDS - part_began)); }
fail() { printf 'FAIL  %s\n' "$*"; printf '\n%d passed, 1 failed\n' "$passed"; exit 1; }

# is EXPECTED ACTUAL WHAT
is() { [ "$1" = "$2" ] || fail "$3: '$2' instead of '$1'"; }

# has TEXT PART WHAT
has() { case $1 in *"$2"*) ;; *) fail "$3: no '$2' in: $1" ;; esac; }

# eventually WHAT COMMAND...
eventually() {
  local what=$1 until=$((SECONDS + patience))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$until" ] || fail "$what: not within $patience s ($*)"
    sleep 0.2
  done
}

ready() { curl -sf http://127.0.0.1:8080/readyz; }

# block PAGE INFO: the code that a page prints under this info string.
block() {
  awk -v mark="\`\`\`$2" '{ line = $0; sub(/^ +/, "", line) } line == mark { on = 1; found = 1; next }
    line ~ /^```/ { on = 0 } on { print line } END { exit !found }' "$1" || fail "$1 has no block '$2'"
}

# replaced TEXT FROM TO: FROM has to be there.
replaced() {
  case $1 in *"$2"*) ;; *) fail "no '$2' in: $1" ;; esac
  printf '%s\n' "${1//"$2"/"$3"}"
}

# stop PID: one that this run started.
stop() { kill "$1" 2>/dev/null || true; wait "$1" 2>/dev/null || true; }

start_nats() {
  mkdir -p "$scratch/nats-$1"
  nats-server -a 127.0.0.1 -p 4222 -js -sd "$scratch/nats-$1" >"$scratch/nats-$1.log" 2>&1 &
  nats=$!
  eventually "nats-server takes connections" bash -c 'exec 3<>/dev/tcp/127.0.0.1/4222'
}

# compare LEDGER LIST: every acknowledged meeting is in the list once.
compare() {
  local missing twice
  missing=$(sort "$1" | comm -23 - <(sort -u "$2") | wc -l)
  twice=$(sort "$2" | uniq -d | wc -l)
  [ "$missing" -eq 0 ] && [ "$twice" -eq 0 ] || fail "of $(wc -l <"$1") acknowledged events $missing are not there, $twice are there twice"
  [ -s "$1" ] || fail "nothing was acknowledged"
}

# ── a Debian that boots ───────────────────────────────────────────────────────────────────────────────────────────

# boot NAME: a copy of the tree. Not an overlay, which Convoke rightly calls no place for a database.
boot() {
  machine=$scratch/machine-$1
  if [ ! -d "$machine" ]; then
    mkdir -p "$machine"
    cp -a "$debian" "$machine/root"
  fi
  printf "127.0.0.1 localhost %s\n" "$(uname -n)" >"$machine/root/etc/hosts"
  systemd-nspawn --register=no --keep-unit --quiet --boot --directory "$machine/root" --machine "convoke-$1" \
    --console=pipe </dev/null >"$machine/console.log" 2>&1 &
  nspawn=$!
  eventually "the machine has an init" pgrep -P "$nspawn" -x systemd
  init=$(pgrep -P "$nspawn" -x systemd)
  eventually "the machine is up" up
}

up() { case $(inside systemctl is-system-running) in running | degraded) ;; *) return 1 ;; esac; }

# inside COMMAND...: as root in the machine.
inside() { nsenter --target "$init" --all --root --wd env -i --chdir=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }

power_off() {
  kill -RTMIN+4 "$init"
  wait "$nspawn" || true
}

main_pid() { inside systemctl show --property MainPID --value convoke; }

# stored FILE: the meetings that the machine's database has, as its user reads them.
stored() { inside sudo -u convoke sqlite3 /var/lib/convoke/convoke.db 'SELECT meeting_id FROM events' >"$1"; }

another_process() { local now; now=$(main_pid); [ "$now" != 0 ] && [ "$now" != "$1" ] && ready; }

# The first minutes: the steps are done, and it has to take what the platform sends.
first_contact() {
  eventually "it takes events" ready
  post handshake "$events_url" || fail "the handshake"
  post events "$events_url" 20 "$ledger"
  stored "$scratch/stored"
  compare "$ledger" "$scratch/stored"
  has "$(inside ps -o user= -p "$(main_pid)")" convoke "its user"
  local said
  said=$(inside bash -c "$(block docs/install/systemd.md "sh check")") || fail "check: $said"
  has "$said" "handshake" "check"
  case $said in *FAIL*) fail "$said" ;; esac
  # Nobody else reads the keys.
  is "root:convoke 750" "$(inside stat -c '%U:%G %a' /etc/convoke)" "/etc/convoke"
  for file in app-key admin-token convoke.toml; do
    is "root:convoke 640" "$(inside stat -c '%U:%G %a' "/etc/convoke/$file")" "$file"
  done
  case $(inside journalctl -u convoke --no-pager) in *"holds a secret"*) fail "a file of a secret that others may read" ;; esac
}

restarts() {
  local before
  before=$(main_pid)
  inside systemctl restart convoke
  another_process "$before" || eventually "it takes events after a restart" another_process "$before"
  post events "$events_url" 5 "$ledger"
  ok "a restart: it takes events again"
  before=$(main_pid)
  inside kill -9 "$before"
  eventually "it is started again after kill -9" another_process "$before"
  has "$(inside journalctl -u convoke --no-pager)" "code=killed, status=9/KILL" "the journal"
  post events "$events_url" 5 "$ledger"
  stored "$scratch/stored"
  compare "$ledger" "$scratch/stored"
  ok "killed with SIGKILL: systemd starts it again, the journal says so, and nothing is lost"
}
