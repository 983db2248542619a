// Prints what the official parser says of an AsyncAPI document, as one JSON object.
// Argument: the document. NODE_PATH says where the parser is.
const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");

const SEVERITY = ["error", "warning", "info", "hint"];

(async () => {
  const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
  const found = diagnostics.map(({ severity, code, path, message }) => ({ severity: SEVERITY[severity], code, path: path.join("."), message }));
  const named = (list) => list.all().map((item) => item.id()).sort();
  const read = document && {
    channels: named(document.channels()),
    operations: named(document.operations()),
    messages: named(document.messages()),
    schemas: document.components().schemas().all().length,
  };
  console.log(JSON.stringify({ found, read: read ?? null }));
})();
