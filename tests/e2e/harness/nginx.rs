//! nginx, the oracle for static files and the proxy in front.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use super::process::Guard;
use super::until;

/// Whether there is an nginx; says so if not.
pub(crate) fn available() -> bool {
    let found = Command::new("nginx").arg("-v").output().is_ok_and(|out| out.status.success());
    if !found {
        eprintln!("skipped: there is no nginx here; Debian's package nginx has it");
    }
    found
}

/// A running nginx.
pub(crate) struct Nginx {
    pub(crate) addr: SocketAddr,
    _guard: Guard,
}

impl Nginx {
    /// Starts nginx in `home`. `http` stands in its `http` block, `server` in the one server's.
    pub(crate) fn start(home: &Path, http: &str, server: &str) -> Self {
        let folder = home.display();
        // nginx takes no port 0: a port that was free a moment ago will do.
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {folder}/nginx-{kind};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr warn;\n\
             events {{ worker_connections 512; }}\n\
             http {{\naccess_log off;\n{temp}\
             types {{ text/html html; text/javascript js; video/mp2t ts; video/mp4 mp4; }}\n\
             default_type application/octet-stream;\n{http}\n\
             server {{\nlisten {addr};\n{server}\n}}\n}}\n"
        );
        let file = home.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(home).arg("-c").arg(&file);
        let mut guard = Guard::spawn("nginx", &mut command);
        until("nginx to listen", || {
            assert!(guard.is_running(), "nginx ended: {:?}", guard.log());
            TcpStream::connect(addr).ok()
        });
        Self { addr, _guard: guard }
    }
}
