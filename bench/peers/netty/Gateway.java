// A gateway on Netty: greets, registers, passes on what is said to a user, and tells everybody what is pushed.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.ByteBufInputStream;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFutureListener;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.group.ChannelGroup;
import io.netty.channel.group.DefaultChannelGroup;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.codec.http.QueryStringDecoder;
import io.netty.handler.codec.http.websocketx.TextWebSocketFrame;
import io.netty.handler.codec.http.websocketx.WebSocketServerProtocolHandler;
import io.netty.util.concurrent.GlobalEventExecutor;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import java.util.concurrent.atomic.AtomicLong;

public final class Gateway {
    private static final int MESSAGE_BYTES_MAX = 65536;
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final ConcurrentMap<String, Channel> users = new ConcurrentHashMap<>();
    private static final ChannelGroup everybody = new DefaultChannelGroup(GlobalEventExecutor.INSTANCE);

    public static void main(String[] arguments) throws Exception {
        ServerBootstrap bootstrap = new ServerBootstrap()
                .group(new NioEventLoopGroup(1), new NioEventLoopGroup())
                .channel(NioServerSocketChannel.class)
                .childHandler(new ChannelInitializer<SocketChannel>() {
                    @Override
                    protected void initChannel(SocketChannel channel) {
                        channel.pipeline()
                                .addLast(new HttpServerCodec())
                                .addLast(new HttpObjectAggregator(MESSAGE_BYTES_MAX))
                                .addLast(new WebSocketServerProtocolHandler("/websocket", null, false, MESSAGE_BYTES_MAX, false, true))
                                .addLast(new Push())
                                .addLast(new Client());
                    }
                });
        Channel listener = bootstrap.bind("127.0.0.1", 0).sync().channel();
        int port = ((InetSocketAddress) listener.localAddress()).getPort();
        System.out.println("ready ws=ws://127.0.0.1:" + port + "/websocket");
        listener.closeFuture().sync();
    }

    private static final class Push extends SimpleChannelInboundHandler<FullHttpRequest> {
        @Override
        protected void channelRead0(ChannelHandlerContext context, FullHttpRequest request) throws Exception {
            for (JsonNode msg : JSON.readTree((InputStream) new ByteBufInputStream(request.content()))) {
                everybody.writeAndFlush(frame(Texts.broadcast(msg)));
            }
            DefaultFullHttpResponse response = new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.OK);
            context.writeAndFlush(response).addListener(ChannelFutureListener.CLOSE);
        }
    }

    private static final class Client extends SimpleChannelInboundHandler<TextWebSocketFrame> {
        private String uid;

        @Override
        public void userEventTriggered(ChannelHandlerContext context, Object event) throws Exception {
            if (event instanceof WebSocketServerProtocolHandler.HandshakeComplete) {
                String uri = ((WebSocketServerProtocolHandler.HandshakeComplete) event).requestUri();
                uid = new QueryStringDecoder(uri).parameters().get("openid").get(0);
                everybody.add(context.channel());
                context.writeAndFlush(frame(Texts.notice(uid)));
            }
        }

        @Override
        protected void channelRead0(ChannelHandlerContext context, TextWebSocketFrame text) throws Exception {
            JsonNode said = JSON.readTree(text.text());
            if (said.path("type").asInt() == 7) {
                users.put(uid, context.channel());
                context.writeAndFlush(frame(Texts.registered(uid)));
                return;
            }
            String to = said.path("to").asText();
            Channel receiver = users.get(to);
            if (receiver != null) {
                receiver.writeAndFlush(frame(Texts.direct(uid, to, said.path("msg"))));
            }
        }

        @Override
        public void channelInactive(ChannelHandlerContext context) {
            if (uid != null) {
                users.remove(uid);
            }
        }

        @Override
        public void exceptionCaught(ChannelHandlerContext context, Throwable cause) {
            context.close();
        }
    }

    private static TextWebSocketFrame frame(ObjectNode text) throws Exception {
        return new TextWebSocketFrame(JSON.writeValueAsString(text));
    }

    /** The texts, as long as those of Throng. */
    private static final class Texts {
        private static final AtomicLong count = new AtomicLong();
        private static final String CODE = "c".repeat(118);
        private static final String EPOCH = "0123456789abcdef";
        private static final String REQUEST_ID = "0123456789abcdef0123456789abcdef";

        static ObjectNode notice(String uid) {
            ObjectNode text = JSON.createObjectNode().put("sessionId", sessionId(uid));
            text.putArray("to").add(uid);
            text.putObject("msg").put("userCode", CODE).put("userId", uid).put("userName", uid)
                    .put("epoch", EPOCH).put("headSeq", 0);
            return text.put("activeTime", System.currentTimeMillis()).put("from", "system")
                    .put("messageId", messageId()).put("msgType", 0).put("trigger", 2);
        }

        static ObjectNode registered(String uid) {
            ObjectNode text = JSON.createObjectNode().put("type", 8).put("status", 200);
            text.putObject("params").put("openid", uid).put("userName", uid).put("loginStatus", "1")
                    .put("sessionId", sessionId(uid)).put("epoch", EPOCH).put("headSeq", 0);
            return text;
        }

        static ObjectNode direct(String from, String to, JsonNode msg) {
            ObjectNode text = JSON.createObjectNode().put("sessionId", sessionId(to));
            text.putArray("to").add(to);
            text.set("msg", msg);
            return text.put("activeTime", System.currentTimeMillis()).put("from", from)
                    .put("messageId", messageId()).put("msgType", 1).put("trigger", 2);
        }

        static ObjectNode broadcast(JsonNode msg) {
            ObjectNode text = JSON.createObjectNode();
            text.putArray("to").add("*");
            text.set("msg", msg);
            return text.put("activeTime", System.currentTimeMillis()).put("from", "system")
                    .put("messageId", messageId()).put("msgType", 1).put("requestId", REQUEST_ID).put("trigger", 1);
        }

        private static String sessionId(String uid) {
            return "127.0.0.1:8084_" + uid + "_20261121091500";
        }

        /** 32 digits. */
        private static String messageId() {
            String digits = Long.toString(count.getAndIncrement());
            return "0".repeat(32 - digits.length()) + digits;
        }
    }
}
