// A gateway on Node with `ws`: greets, registers, passes on what is said to a user, and tells everybody what is pushed.
const { createServer } = require('node:http');
const { WebSocket, WebSocketServer } = require('ws');
const { broadcast, direct, notice, registered } = require('./envelopes.cjs');

const users = new Map();

const http = createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    for (const msg of JSON.parse(Buffer.concat(pieces))) {
      const text = JSON.stringify(broadcast(msg));
      for (const client of wss.clients) if (client.readyState === WebSocket.OPEN) client.send(text);
    }
    response.end();
  });
});

const wss = new WebSocketServer({ server: http });
wss.on('connection', (ws, request) => {
  const uid = new URL(request.url, 'http://localhost').searchParams.get('openid');
  ws.on('error', console.error);
  ws.on('close', () => users.delete(uid));
  ws.on('message', (data) => {
    const frame = JSON.parse(data);
    if (frame.type === 7) {
      users.set(uid, ws);
      ws.send(JSON.stringify(registered(uid)));
    } else {
      users.get(frame.to)?.send(JSON.stringify(direct(uid, frame)));
    }
  });
  ws.send(JSON.stringify(notice(uid)));
});

http.listen(0, '127.0.0.1', () => console.log(`ready ws=ws://127.0.0.1:${http.address().port}/websocket`));
