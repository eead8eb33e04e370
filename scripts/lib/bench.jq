# What is read out of a bench.json: figures, bars, the README's table. For jq -L scripts/lib 'include "bench"; ...'

def cost: .result.cpu.ns_per_message // .result.cpu.ns_per_handshake;
def name: [.subject, .what, .case, (if .what == "handshakes" then "" else .x end)] | map(tostring | select(. != "")) | join(", ");

# One result of a set, or null.
def one($subject; $what; $case; $x):
  first(.results[] | select(.subject == $subject and .what == $what and .case == $case and ($x == null or .x == $x))) // null;
def costs($subject; $what; $case):
  [.results[] | select(.subject == $subject and .what == $what and .case == $case) | {x, cost: cost}] | sort_by(.x);
def ratio($a; $b): if $a == null or $b == null or $b == 0 then null else $a / $b end;

# By how much the cost grows over a sweep, at most, as a factor.
def growth: if length < 2 then null else (.[0].cost as $first | map(.cost / $first) | max) end;
# The largest step upward in a sweep that should fall, as a factor: 1 or less is a fall everywhere.
def steepest: . as $all | if length < 2 then null else [range(1; length) | $all[.].cost / $all[. - 1].cost] | max end;

def forwarded($subject): one($subject; "messages"; ""; 64) | if . == null then null else cost end;
def latency($subject): one($subject; "quiet"; ""; null) | .result.latency_us.p50?;
def stalled: {name: "p99 beside a peer that reads nothing, to that without it", figure: (one("ktrunkd"; "stalled"; ""; null) | .result.p99_ratio?), most: 2};

# A set's bars: {name, figure, most}; figure is null where that was not measured.
def bars:
  if .set == "exact" then [
    {name: "a forwarded message at 64 under way, to the floor", figure: ratio(forwarded("ktrunkd"); forwarded("floor")), most: 1.25},
    {name: "the same, to Kamailio", figure: ratio(forwarded("ktrunkd"); forwarded("kamailio")), most: (1 / 3)},
    {name: "from 1 to 64 messages under way, the steepest step (1 % is none)", figure: (costs("ktrunkd"; "messages"; "") | steepest), most: 1.01},
    {name: "from 1 to 64 calls under way, the steepest step (1 % is none)", figure: (costs("ktrunkd"; "calls"; "") | steepest), most: 1.01},
    {name: "latency at no load, to the floor", figure: ratio(latency("ktrunkd"); latency("floor")), most: 1.5},
    {name: "from 1 to 10,000 connections, growth", figure: (costs("ktrunkd"; "idle"; "") | growth), most: 1.1},
    {name: "from 1 to 8 workers, eight connections, growth", figure: (costs("ktrunkd"; "workers"; "eight connections") | growth), most: 1.1},
    {name: "from 1 to 8 workers, one busy connection, growth", figure: (costs("ktrunkd"; "workers"; "one busy connection") | growth), most: 1.1},
    (("ECDSA P-256", "ECDSA P-256, mutual", "RSA-2048") as $kind |
      {name: "a full handshake, \($kind), to bare OpenSSL", most: 1.15,
       figure: ratio(one("ktrunkd"; "handshakes"; $kind; null) | cost?; one("floor"; "handshakes"; $kind; null) | cost?)})
  ] elif .set == "own" then [
    {name: "a forwarded message at 64 under way, to Kamailio", figure: ratio(forwarded("ktrunkd"); forwarded("kamailio")), most: 1},
    stalled
  ] elif .set == "shape" then [stalled] else [] end | map(select(.figure != null) | .holds = (.figure <= .most));

def rounded($digits): . as $value | pow(10; $digits) as $power | ($value * $power | round) / $power;
# With three digits that count: 18431 is 18,400.
def shown:
  if . == null then "" elif . >= 100 then
    (. | log10 | floor) as $size | pow(10; $size - 2) as $unit | ((. / $unit | round) * $unit | round | tostring) as $digits |
    [$digits | explode | reverse | to_entries[] | (if .key > 0 and .key % 3 == 0 then 44 else empty end), .value] | reverse | implode
  else rounded(2) | tostring end;

# Every cost of a set, as lines "name: figure".
def lines: .results[] | select(cost? != null) | "\(name): \(cost | shown)";

# The exact figures of a run: name, nanoseconds (guest instructions).
def exact: [.sets[] | select(.set == "exact") | .results[] | select(cost? != null) | {name: name, ns: cost}];

# A run in Markdown.
def row: "| \(join(" | ")) |";
def markdown_set:
  . as $set | (if .set == "exact" then "guest instructions" else "nanoseconds of CPU" end) as $unit |
  (["floor", "ktrunkd", "kamailio"] | map(select(. as $subject | $set.results | any(.subject == $subject)))) as $subjects |
  ([$unit] + $subjects | row), (["---"] + ($subjects | map("---")) | row),
  ((1, 4, 16, 64) as $n | ["a message, \($n) under way"] + ($subjects | map(. as $subject | $set | one($subject; "messages"; ""; $n) | if . == null then "" else cost | shown end)) | row),
  (["latency at no load, us"] + ($subjects | map(. as $subject | $set | latency($subject) | shown)) | row),
  (($set.results | map(select(.what == "handshakes") | .case) | unique | .[]) as $kind |
    ["a handshake, \($kind)"] + ($subjects | map(. as $subject | $set | one($subject; "handshakes"; $kind; null) | if . == null then "" else cost | shown end)) | row),
  (if any($set.results[]; .what == "memory") then ["memory of an idle connection, octets"] +
    ($subjects | map(. as $subject | $set | one($subject; "memory"; ""; null) | .result.memory.octets_per_connection? | shown)) | row else empty end);
def markdown_bars:
  "| bar | figure | at most | |", "| --- | --- | --- | --- |",
  (.[] | [.name, (.figure | rounded(2) | tostring), (.most | rounded(2) | tostring), (if .holds then "holds" else "**not met**" end)] | row);
def markdown:
  "Measured \(.time).", "",
  (.sets[] | "\({own: "This machine", shape: "Test machine, wall clock", exact: "Test machine, guest instructions"}[.set]), " +
     "Linux \(.kernel), Kamailio \(.kamailio):", "", markdown_set, "", (.bars | if length == 0 then empty else markdown_bars, "" end));
