// The texts that every peer sends, as long as those of Throng: a peer fills in who, whom and what.
const CODE = 'c'.repeat(118);
const EPOCH = '0123456789abcdef';
const REQUEST_ID = '0123456789abcdef0123456789abcdef';

let count = 0;
const messageId = () => String(count++).padStart(32, '0');
const sessionId = (uid) => `127.0.0.1:8084_${uid}_20261121091500`;

exports.notice = (uid) => ({
  sessionId: sessionId(uid),
  to: [uid],
  msg: { userCode: CODE, userId: uid, userName: uid, epoch: EPOCH, headSeq: 0 },
  activeTime: Date.now(),
  from: 'system',
  messageId: messageId(),
  msgType: 0,
  trigger: 2,
});

exports.registered = (uid) => ({
  type: 8,
  status: 200,
  params: { openid: uid, userName: uid, loginStatus: '1', sessionId: sessionId(uid), epoch: EPOCH, headSeq: 0 },
});

exports.direct = (from, { to, msg }) => ({
  sessionId: sessionId(to),
  to: [to],
  msg,
  activeTime: Date.now(),
  from,
  messageId: messageId(),
  msgType: 1,
  trigger: 2,
});

exports.broadcast = (msg) => ({
  to: ['*'],
  msg,
  activeTime: Date.now(),
  from: 'system',
  messageId: messageId(),
  msgType: 1,
  requestId: REQUEST_ID,
  trigger: 1,
});
