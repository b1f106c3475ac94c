//! What a peer may ask of us. Every limit has its default here and its key in the configuration.

/// Limits of one connection and of a reactor's queues. Sizes in bytes, times in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request line of an upgrade, past it 414.
    pub request_line_bytes_max: usize,
    /// Header fields of an upgrade, all together; past it 431.
    pub header_bytes_max: usize,
    /// Number of header fields of an upgrade; past it 431.
    pub headers_max: usize,
    /// From accept to the answer, absolute.
    pub handshake_secs: u32,
    /// From the upgrade to a known identity, absolute; then 4401.
    pub auth_timeout_secs: u32,
    /// One frame before authentication, and all of them; past it 1008.
    pub preauth_frame_bytes_max: usize,
    pub preauth_bytes_max: usize,
    /// A frame, and a message of several; past it 1009.
    pub message_bytes_max: usize,
    /// Fragments of one message, empty ones included; past it 1008.
    pub fragments_max: u32,
    /// For a message (and for a torn frame) to complete; then 1008.
    pub message_secs: u32,
    /// Control frames a second from one client (a burst is twice that); past it 1008.
    pub control_frames_per_sec: u32,
    /// Data frames a second (burst: twice); past it error 429, past twice the burst 4429.
    pub frames_per_sec: u32,
    /// Bytes a second (burst: twice); as above.
    pub bytes_per_sec: u32,
    /// Malformed frames, or frames before authentication that need it, until 1008.
    pub strikes_max: u8,
    /// JSON nesting.
    pub json_depth_max: usize,
    /// A connection's write queue: past `soft` it is not read from, past `hard` it is closed 4413.
    pub queue_soft_bytes: usize,
    pub queue_hard_bytes: usize,
    /// A write queue that does not move for so long closes 4413.
    pub queue_stalled_secs: u32,
    /// A ping goes to a connection silent for so long; 0: never.
    pub ping_secs: u32,
    /// A connection silent for so long is closed 4408; 0: never.
    pub idle_secs: u32,
    /// How long a peer's close is awaited after ours.
    pub close_secs: u32,
    /// All write queues of the node together; 0: a quarter of the memory. Past it the largest
    /// are shed.
    pub node_queue_bytes_max: usize,
    /// Connections of one user; one more closes the oldest, 4409.
    pub user_sessions_max: usize,
    /// Connections from one address, those of strangers among them, and upgrades a second from
    /// it; 0: any number. Past it 503.
    pub address_connections_max: usize,
    pub address_strangers_max: usize,
    pub address_handshakes_per_sec: u32,
    /// Newcomers a second; 0: any number. The others wait.
    pub handshakes_per_sec: u32,
    /// The part of the node's places that those may hold who have not said who they are.
    pub strangers_percent_max: u32,
    /// Groups that a user is in, and members of a group; past it error 409.
    pub groups_per_user_max: usize,
    pub group_members_max: usize,
    /// Of one inbox: messages and their bytes, past either error 503; and how long they are kept.
    pub inbox_entries_max: u32,
    pub inbox_bytes_max: usize,
    pub inbox_ttl_secs: u32,
    /// Users whose presence one connection watches; past it error 400.
    pub watches_max: usize,
    /// Display name; past it error 400.
    pub name_bytes_max: usize,
    /// Metadata of a connection, keys and values together; past it 400.
    pub metadata_pairs_max: usize,
    pub metadata_bytes_max: usize,
    /// Receivers of one message; past it 400.
    pub targets_max: usize,
    /// Body of a request to the HTTP API, past it 413, and the time for its head, then 408.
    pub http_body_bytes_max: usize,
    pub http_header_secs: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_line_bytes_max: 4 << 10,
            header_bytes_max: 8 << 10,
            headers_max: 64,
            handshake_secs: 10,
            auth_timeout_secs: 60,
            preauth_frame_bytes_max: 4 << 10,
            preauth_bytes_max: 8 << 10,
            message_bytes_max: 64 << 10,
            fragments_max: 1024,
            message_secs: 30,
            control_frames_per_sec: 10,
            frames_per_sec: 1000,
            bytes_per_sec: 1 << 20,
            strikes_max: 3,
            json_depth_max: 32,
            queue_soft_bytes: 256 << 10,
            queue_hard_bytes: 1 << 20,
            queue_stalled_secs: 10,
            ping_secs: 60,
            idle_secs: 210,
            close_secs: 1,
            node_queue_bytes_max: 0,
            user_sessions_max: 8,
            address_connections_max: 0,
            address_strangers_max: 0,
            address_handshakes_per_sec: 0,
            handshakes_per_sec: 0,
            strangers_percent_max: 50,
            groups_per_user_max: 128,
            group_members_max: 500,
            inbox_entries_max: 1000,
            inbox_bytes_max: 8 << 20,
            inbox_ttl_secs: 7 * 24 * 3600,
            watches_max: 256,
            name_bytes_max: 64,
            metadata_pairs_max: 8,
            metadata_bytes_max: 256,
            targets_max: 1000,
            http_body_bytes_max: 1 << 20,
            http_header_secs: 5,
        }
    }
}

impl Limits {
    /// Some limit counts what comes from one address.
    pub fn count_addresses(&self) -> bool {
        self.address_connections_max > 0
            || self.address_strangers_max > 0
            || self.address_handshakes_per_sec > 0
    }

    /// The echo endpoint's own: large messages, any number of fragments, no rates, no clock.
    pub fn echo(&self) -> Limits {
        Limits {
            message_bytes_max: 16 << 20,
            fragments_max: u32::MAX,
            message_secs: 0,
            control_frames_per_sec: 0,
            frames_per_sec: 0,
            bytes_per_sec: 0,
            queue_soft_bytes: 16 << 20,
            queue_hard_bytes: 64 << 20,
            queue_stalled_secs: 0,
            ping_secs: 0,
            idle_secs: 0,
            ..self.clone()
        }
    }
}

macro_rules! limit_names {
    ($($(#[$doc:meta])* $variant:ident = $key:literal,)*) => {
        /// A limit that strikes: what the metric and the log call it, which is the key that moves it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Limit { $($(#[$doc])* $variant,)* }

        impl Limit {
            pub const ALL: &[Limit] = &[$(Limit::$variant,)*];

            /// The key of the configuration, without its table.
            pub fn key(self) -> &'static str {
                match self { $(Limit::$variant => $key,)* }
            }
        }
    };
}

limit_names! {
    RequestLine = "request_line_bytes_max",
    HeaderBytes = "header_bytes_max",
    Headers = "headers_max",
    Handshake = "handshake_secs",
    AuthTimeout = "auth_timeout_secs",
    Preauth = "preauth_bytes_max",
    Strangers = "strangers_percent_max",
    Message = "message_bytes_max",
    Fragments = "fragments_max",
    MessageTime = "message_secs",
    ControlFrames = "control_frames_per_sec",
    Frames = "frames_per_sec",
    Bytes = "bytes_per_sec",
    Strikes = "strikes_max",
    JsonDepth = "json_depth_max",
    QueueSoft = "queue_soft_bytes",
    QueueHard = "queue_hard_bytes",
    QueueStalled = "queue_stalled_secs",
    NodeQueue = "node_queue_bytes_max",
    Idle = "idle_secs",
    Connections = "max_connections",
    UserSessions = "user_sessions_max",
    AddressConnections = "address_connections_max",
    AddressStrangers = "address_strangers_max",
    AddressHandshakes = "address_handshakes_per_sec",
    Handshakes = "handshakes_per_sec",
    GroupsPerUser = "groups_per_user_max",
    GroupMembers = "group_members_max",
    Watches = "watches_max",
    Name = "name_bytes_max",
    Metadata = "metadata_bytes_max",
    MetadataPairs = "metadata_pairs_max",
    Targets = "targets_max",
    HttpBody = "http_body_bytes_max",
    HttpHeader = "http_header_secs",
    Drain = "drain_secs",
}
