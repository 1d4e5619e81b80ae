// SPDX-License-Identifier: Apache-2.0
//! A gateway in front of a real server that changes or refuses requests.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// The parameters of a request.
pub(crate) type Parameters = Vec<(String, String)>;

type Change = dyn Fn(&mut Parameters) -> Option<ResponseTemplate> + Send + Sync;

struct Gateway {
    /// The server behind it, as host and port.
    upstream: String,
    change: Box<Change>,
}

/// Starts a gateway. `change` changes the parameters of each request, or answers instead of the server.
pub(crate) async fn gateway(
    upstream: &str,
    change: impl Fn(&mut Parameters) -> Option<ResponseTemplate> + Send + Sync + 'static,
) -> MockServer {
    let server = MockServer::start().await;
    let upstream = upstream.trim_start_matches("http://").to_owned();
    let gateway = Gateway { upstream, change: Box::new(change) };
    Mock::given(any()).respond_with(gateway).mount(&server).await;
    server
}

/// The parameter of that name.
pub(crate) fn parameter<'a>(parameters: &'a mut Parameters, name: &str) -> Option<&'a mut String> {
    parameters.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value)
}

impl Respond for Gateway {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut parameters: Parameters =
            url::form_urlencoded::parse(&request.body).into_owned().collect();
        if let Some(answer) = (self.change)(&mut parameters) {
            return answer;
        }
        let body =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&parameters).finish();
        // The gateway has a thread of its own. HTTP/1.0 ends each answer with its connection.
        let mut stream = TcpStream::connect(&self.upstream).unwrap();
        write!(
            stream,
            "POST {} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            request.url.path(),
            self.upstream,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse::<u16>().unwrap();
        let date = head.lines().find_map(|line| line.strip_prefix("Date: ")).unwrap();
        ResponseTemplate::new(status)
            .set_body_raw(body, "application/json")
            .insert_header("date", date)
    }
}
