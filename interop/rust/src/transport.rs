//! The connection under a session: TCP, or TLS where an authority is given.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{flag, say, Fault};

pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}
pub type Connection = Box<dyn Bytes>;

/// Dials or listens, as the flags say; the end that listens is TLS's server.
pub async fn connect() -> Result<Connection, Fault> {
    let secured = !flag("-ca").is_empty();
    let address = flag("-dial");
    if address.is_empty() {
        let listener = TcpListener::bind(flag("-listen")).await?;
        say(json!({"event": "listening", "addr": listener.local_addr()?.to_string()}));
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        if secured {
            return Ok(Box::new(acceptor()?.accept(socket).await?));
        }
        return Ok(Box::new(socket));
    }
    let address: SocketAddr = address.parse()?;
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    if secured {
        let name = ServerName::from(address.ip());
        return Ok(Box::new(connector()?.connect(name, socket).await?));
    }
    Ok(Box::new(socket))
}

fn acceptor() -> Result<TlsAcceptor, Fault> {
    let chain = CertificateDer::pem_file_iter(flag("-cert"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(flag("-key"))?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn connector() -> Result<TlsConnector, Fault> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(flag("-ca"))?)?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
