//! The discovery process under measurement.

use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub struct Discovery {
    child: Child,
    address: SocketAddr,
    monitoring: SocketAddr,
}

/// What discovery has sent so far, by its own metrics.
#[derive(Clone, Copy, Default)]
pub struct Sent {
    pub responses: u64,
    pub bytes: u64,
}

impl std::ops::Sub for Sent {
    type Output = Self;
    fn sub(self, before: Self) -> Self {
        Self { responses: self.responses - before.responses, bytes: self.bytes - before.bytes }
    }
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
            .args(["--httpsAddr", ""])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let mut discovery = Self { child, address, monitoring };
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

    pub async fn sent(&self) -> Result<Sent> {
        let mut stream = tokio::net::TcpStream::connect(self.monitoring).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: discovery\r\nconnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let sum = |name: &str| -> u64 {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64
        };
        Ok(Sent { responses: sum("pilot_xds_pushes"), bytes: sum("pilot_xds_config_size_bytes_sum") })
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
