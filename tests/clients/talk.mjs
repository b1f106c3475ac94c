// A line client over npm `ws`; talk.py is its twin over PyPI `websockets`, and says what the lines mean.
//
//     node talk.mjs URL [SUBPROTOCOL...]
//
// `ws` is taken from target/tools/node, where scripts/test-tools.sh puts it, or from $THRONG_TOOLS/node.

import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const tools = process.env.THRONG_TOOLS ?? fileURLToPath(new URL('../../target/tools', import.meta.url));
const { WebSocket } = createRequire(resolve(tools, 'node') + '/')('ws');

const [url, ...subprotocols] = process.argv.slice(2);
if (url === undefined) {
  console.error('usage: talk.mjs URL [SUBPROTOCOL...]');
  process.exit(2);
}

const say = (...words) => process.stdout.write(words.join(' ').replace(/ +$/, '') + '\n');
const socket = new WebSocket(url, subprotocols);
let opened = false;

socket.on('open', () => {
  opened = true;
  say('open', socket.protocol);
  const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
  lines.on('line', (line) => {
    if (line === 'quit') lines.close();
    else if (socket.readyState === WebSocket.OPEN) socket.send(line);
  });
  lines.on('close', () => socket.close(1000));
});
socket.on('message', (data, isBinary) => {
  if (isBinary) say('binary', data.length);
  else say('recv', data.toString());
});
socket.on('unexpected-response', (_request, response) => {
  say('refused', response.statusCode);
  process.exit(1);
});
socket.on('error', (error) => {
  if (opened) return; // the close event follows and reports it
  console.error(`cannot connect: ${error.message}`);
  process.exit(1);
});
socket.on('close', (code, reason) => {
  say('close', code, reason.toString());
  process.exit(code === 1006 ? 1 : 0);
});
