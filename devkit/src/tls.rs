//! A certificate for one run, and the authority that signed it.

use anyhow::{Context, Result};
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};
use tokio_native_tls::TlsAcceptor;

const DAYS: u32 = 30;

/// A server's certificate for `localhost` and `127.0.0.1`.
pub struct Certificate {
    /// The authority's certificate.
    pub ca_pem: String,
    /// Takes connections with the server's certificate.
    pub acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

impl Certificate {
    /// Makes an authority and a certificate signed by it.
    ///
    /// # Errors
    /// OpenSSL refuses.
    pub fn make() -> Result<Self> {
        let (chain, key, ca_pem) = signed().context("cannot make a certificate")?;
        let identity = native_tls::Identity::from_pkcs8(&chain, &key)?;
        let acceptor = native_tls::TlsAcceptor::new(identity)?.into();
        Ok(Self { ca_pem, acceptor })
    }
}

type Key = PKey<Private>;

/// The server's chain, its key, and the authority, each as PEM.
fn signed() -> Result<(Vec<u8>, Vec<u8>, String)> {
    let ca_key = key()?;
    let ca_name = name("devkit: authority of one run")?;
    let mut ca = builder(&ca_name, &ca_name, &ca_key)?;
    ca.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    ca.append_extension(
        KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()?,
    )?;
    ca.sign(&ca_key, MessageDigest::sha256())?;
    let ca = ca.build();

    let server_key = key()?;
    let mut server = builder(&name("localhost")?, &ca_name, &server_key)?;
    server.append_extension(BasicConstraints::new().critical().build()?)?;
    server.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
    let names = SubjectAlternativeName::new()
        .dns("localhost")
        .ip("127.0.0.1")
        .build(&server.x509v3_context(Some(&ca), None))?;
    server.append_extension(names)?;
    server.sign(&ca_key, MessageDigest::sha256())?;

    let ca_pem = ca.to_pem()?;
    let chain = [server.build().to_pem()?, ca_pem.clone()].concat();
    Ok((
        chain,
        server_key.private_key_to_pem_pkcs8()?,
        String::from_utf8(ca_pem)?,
    ))
}

fn key() -> Result<Key> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}

fn name(common_name: &str) -> Result<X509Name> {
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    Ok(name.build())
}

fn builder(subject: &X509Name, issuer: &X509Name, key: &Key) -> Result<X509Builder> {
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    builder.set_not_after(Asn1Time::days_from_now(DAYS)?.as_ref())?;
    Ok(builder)
}
