// A gateway on Socket.IO, one node: greets, registers, passes on what is said to a user, and tells everybody what is pushed.
const { createServer } = require('node:http');
const { Server } = require('socket.io');
const { broadcast, direct, notice, registered } = require('./envelopes.cjs');

const http = createServer();
const io = new Server(http);

io.on('connection', (socket) => {
  const uid = socket.handshake.query.openid;
  socket.on('register', () => {
    socket.join(uid);
    socket.emit('message', registered(uid));
  });
  socket.on('direct', (frame) => io.to(frame.to).emit('message', direct(uid, frame)));
  socket.emit('message', notice(uid));
});

http.on('request', (request, response) => {
  if (request.url !== '/push') return;
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    for (const msg of JSON.parse(Buffer.concat(pieces))) io.emit('message', broadcast(msg));
    response.end();
  });
});

http.listen(0, '127.0.0.1', () => console.log(`ready ws=ws://127.0.0.1:${http.address().port}/socket.io/?EIO=4&transport=websocket`));
