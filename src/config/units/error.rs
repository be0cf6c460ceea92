//! Values that are refused.

/// What is wrong with a value, and how to write it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not an address to listen on.
    #[error("{text:?} is not an address: write \"0.0.0.0:8080\", \"[::]:8080\" or \":8080\"")]
    Address {
        /// What was written.
        text: String,
    },
    /// Too many addresses to listen on.
    #[error("{count} addresses are more than the {max} that a listener may have")]
    Addresses {
        /// How many were written.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// Not a number of bytes.
    #[error("{text:?} is not a size: write a number of bytes or \"512KiB\", \"32MiB\", \"1GiB\"")]
    Size {
        /// What was written.
        text: String,
    },
    /// Not a duration.
    #[error("{text:?} is not a duration: write \"350ms\", \"10s\" or \"1m 30s\"")]
    Duration {
        /// What was written.
        text: String,
    },
    /// Not a time to gather tags for.
    #[error("{text:?} is not a time to gather tags for: write \"auto\", \"0ms\" or \"350ms\"")]
    Flush {
        /// What was written.
        text: String,
    },
    /// Not the URL of an upstream.
    #[error("{text:?} is not an upstream ({why}): write \"http://host[:port][/prefix]\"")]
    Upstream {
        /// What was written.
        text: String,
        /// The part that is wrong.
        why: &'static str,
    },
    /// Not the URL of a stream on another server.
    #[error(
        "{text:?} is not the URL of a stream ({why}): write \"rtmp://host/app/name\" or \"http://host:8501/app/name.flv\""
    )]
    Remote {
        /// What was written.
        text: String,
        /// The part that is wrong.
        why: &'static str,
    },
    /// Not a format that streams are packaged in.
    #[error("{text:?} cannot be packaged: write \"recorded\", \"none\" or some of \"hls,fmp4\"")]
    Packaging {
        /// What was written.
        text: String,
    },
    /// Not a kind of recording.
    #[error("{text:?} cannot be recorded: write \"none\" or some of \"flv,hls,fmp4\"")]
    Record {
        /// What was written.
        text: String,
    },
    /// Not a format of the access log.
    #[error("{text:?} is not a form of the access log: write \"combined\" or \"json\"")]
    AccessFormat {
        /// What was written.
        text: String,
    },
    /// Not the address of a host.
    #[error("{text:?} is not a list of addresses: write \"127.0.0.1,::1\"")]
    Hosts {
        /// What was written.
        text: String,
    },
    /// Not names of hosts.
    #[error("{text:?} is not a list of host names: write \"edge1.example,edge1\", without ports")]
    Names {
        /// What was written.
        text: String,
    },
    /// Not bits per second.
    #[error("{text:?} is not a rate: write bits a second or \"64kbps\", \"100Mbps\", \"1Gbps\"")]
    Rate {
        /// What was written.
        text: String,
    },
    /// Not a network.
    #[error("{text:?} is not a network ({why}): write \"10.0.0.0/8\", \"2001:db8::/32\" or an address")]
    Network {
        /// What was written.
        text: String,
        /// The part that is wrong.
        why: &'static str,
    },
    /// Not a valid secret; the text is not repeated.
    #[error("this is not a token: write at least 16 letters, digits and signs, not digits alone")]
    Secret,
    /// Not a policy.
    #[error("{text:?} is not a policy: write \"open\", \"local\" or \"deny\"")]
    Policy {
        /// What was written.
        text: String,
    },
    /// Not a log format.
    #[error("{text:?} is not a log format: write \"text\" or \"json\"")]
    LogFormat {
        /// What was written.
        text: String,
    },
}
