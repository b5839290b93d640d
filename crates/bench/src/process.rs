//! The discovery process under measurement.

use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Discovery {
    child: Child,
    address: SocketAddr,
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

impl Discovery {
    pub async fn start(binary: &Path, folder: &Path) -> Result<Self> {
        let (address, secure, http, monitoring) = (free()?, free()?, free()?, free()?);
        let child = Command::new(binary)
            .arg("discovery")
            .arg("--configDir")
            .arg(folder)
            .args(["--grpcAddr", &address.to_string(), "--secureGRPCAddr", &secure.to_string()])
            .args(["--httpAddr", &http.to_string(), "--monitoringAddr", &monitoring.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let mut discovery = Self { child, address };
        let end = Instant::now() + Duration::from_secs(60);
        while tokio::net::TcpStream::connect(address).await.is_err() {
            if let Some(status) = discovery.child.try_wait()? {
                bail!("discovery ended: {status}");
            }
            if Instant::now() > end {
                bail!("discovery does not listen on {address}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(discovery)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// CPU time of all threads, from the scheduler's own account.
    pub fn cpu(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    pub fn rss_mib(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
