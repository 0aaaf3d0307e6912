//! Settings of the admin listener and of the logs. They belong beside the code that they configure.

/// The admin listener.
pub mod admin {
    use std::net::SocketAddr;

    use ipnet::IpNet;

    /// The admin listener. `/healthz` and `/readyz` are open to everybody who reaches it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Settings {
        /// Addresses of the listeners; none switches them off.
        pub addresses: Vec<SocketAddr>,
        /// Who may read `/summary`.
        pub summary_clients: AccessList,
        /// Who may read `/metrics`.
        pub metrics_clients: AccessList,
    }

    /// Who may use a path.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum AccessList {
        /// Everybody.
        Any,
        /// Addresses in these networks; an empty list is nobody.
        Networks(Vec<IpNet>),
    }
}

/// The logs.
pub mod telemetry {
    use tracing::level_filters::LevelFilter;

    /// What is logged and how lines look.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct LogSettings {
        /// How a line looks.
        pub format: LogFormat,
        /// Events less severe than this are left out. Access lines do not depend on it.
        pub level: LevelFilter,
        /// Whether each request gets an access line.
        pub access: bool,
    }

    /// How a log line looks.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum LogFormat {
        /// For people.
        Human,
        /// One JSON object on each line.
        Json,
        /// As IoT Edge modules write them.
        IotEdge,
    }
}
