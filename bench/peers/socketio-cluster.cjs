// A node of Socket.IO with the Redis adapter: a room for each user, and what is said is brought to the room of whom it is for.
// REDIS_URL names the Redis; the ready line says where it listens.
const { createServer } = require('node:http');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/redis-adapter');
const { createClient } = require('redis');

(async () => {
  const pub = createClient({ url: process.env.REDIS_URL });
  const sub = pub.duplicate();
  await Promise.all([pub.connect(), sub.connect()]);
  const http = createServer();
  const io = new Server(http, {
    transports: ['websocket'],
    perMessageDeflate: false,
    serveClient: false,
    adapter: createAdapter(pub, sub),
  });
  io.on('connection', (socket) => {
    socket.join(socket.handshake.query.user);
    socket.on('say', (to, text) => io.to(to).emit('said', text));
  });
  http.listen(0, '127.0.0.1', () => console.log(`ready ws=ws://127.0.0.1:${http.address().port}/`));
})();
