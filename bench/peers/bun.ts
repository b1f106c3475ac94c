// A gateway on Bun: greets, registers, passes on what is said to a user, and publishes to everybody what is pushed.
import type { ServerWebSocket } from 'bun';
import { broadcast, direct, notice, registered } from './envelopes.cjs';

type Client = ServerWebSocket<{ uid: string }>;
const users = new Map<string, Client>();

const server = Bun.serve<{ uid: string }>({
  hostname: '127.0.0.1',
  port: 0,
  async fetch(request, server) {
    const url = new URL(request.url);
    if (url.pathname === '/websocket') {
      const data = { uid: url.searchParams.get('openid') ?? '' };
      return server.upgrade(request, { data }) ? undefined : new Response(null, { status: 400 });
    }
    for (const msg of await request.json()) server.publish('all', JSON.stringify(broadcast(msg)));
    return new Response();
  },
  websocket: {
    open(ws: Client) {
      ws.subscribe('all');
      ws.send(JSON.stringify(notice(ws.data.uid)));
    },
    message(ws: Client, text: string) {
      const frame = JSON.parse(text);
      if (frame.type === 7) {
        users.set(ws.data.uid, ws);
        ws.send(JSON.stringify(registered(ws.data.uid)));
      } else {
        users.get(frame.to)?.send(JSON.stringify(direct(ws.data.uid, frame)));
      }
    },
    close(ws: Client) {
      users.delete(ws.data.uid);
    },
  },
});
console.log(`ready ws=ws://127.0.0.1:${server.port}/websocket`);
