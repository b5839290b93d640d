"""A client of HTTP/3 that is not ours: opens one connection, sends all requests at once, and prints what came as JSON.

  http3.py '{"address": "127.0.0.1", "port": 443, "sni": "a.test", "requests": [{"path": "/"}]}'

`ca`, `certificate` and `key` name files. A request may have `method`, `headers` (pairs), `body` (bytes to send), `times`, and
`trailers` (pairs). A handshake that nobody answers is given up after `patience` seconds. With `hold` it prints `ready` after the answers, waits until the connection ends or GOAWAY comes twice, and
then tells of both; requests of `late` are sent when the first GOAWAY has come.
"""
import asyncio
import json
import ssl
import sys

from aioquic.asyncio import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamDataReceived, StreamReset

PATIENCE = 30
GOAWAY = 7


def varint(data):
    """A variable-length integer and the rest; None if it is cut short."""
    length = 1 << (data[0] >> 6) if data else 1
    if len(data) < length:
        return None
    value = data[0] & 0x3F
    for byte in data[1:length]:
        value = value << 8 | byte
    return value, data[length:]


def pairs(fields):
    return [[name.decode(), value.decode()] for name, value in fields]


class Exchange:
    def __init__(self):
        self.sections, self.data, self.reset = [], bytearray(), None
        self.done = asyncio.get_running_loop().create_future()

    def end(self):
        if not self.done.done():
            self.done.set_result(None)

    def told(self):
        heads = [section for section in self.sections if section[0][0] == b":status"]
        trailers = [section for section in self.sections if section[0][0] != b":status"]
        return {
            "status": int(heads[-1][0][1]) if heads else None,
            "headers": pairs(heads[-1][1:]) if heads else [],
            "body": self.data[:4000].decode(errors="replace"),
            "length": len(self.data),
            "trailers": pairs(trailers[0]) if trailers else None,
            "reset": self.reset,
        }


class Client(QuicConnectionProtocol):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.http, self.exchanges, self.closed, self.control = H3Connection(self._quic), {}, None, b""
        self.over, self.warned = asyncio.Event(), asyncio.Event()

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.closed = [event.error_code, event.reason_phrase]
            self.over.set()
            self.warned.set()
            for exchange in self.exchanges.values():
                exchange.end()
        if isinstance(event, (StreamReset, StopSendingReceived)) and event.stream_id in self.exchanges:
            exchange = self.exchanges[event.stream_id]
            if isinstance(event, StreamReset):
                exchange.reset = event.error_code
                exchange.end()
        # The server's first unidirectional stream is its control stream.
        if isinstance(event, StreamDataReceived) and event.stream_id == 3:
            self.control += event.data
            if len(self.goaways()) >= 1:
                self.warned.set()
            if len(self.goaways()) >= 2:
                self.over.set()
        for told in self.http.handle_event(event):
            exchange = self.exchanges.get(told.stream_id)
            if exchange is None:
                continue
            if isinstance(told, HeadersReceived):
                exchange.sections.append(told.headers)
            elif isinstance(told, DataReceived):
                exchange.data += told.data
            if told.stream_ended:
                exchange.end()

    def goaways(self):
        """The numbers of GOAWAY frames so far."""
        found, read = [], varint(self.control)
        while read and read[1]:
            kind = varint(read[1])
            length = kind and varint(kind[1])
            if not length or len(length[1]) < length[0]:
                break
            payload, rest = length[1][: length[0]], length[1][length[0] :]
            if kind[0] == GOAWAY:
                found.append(varint(payload)[0])
            read = (None, rest)
        return found

    def send(self, request, authority):
        stream = self._quic.get_next_available_stream_id()
        exchange = self.exchanges[stream] = Exchange()
        fields = [
            (":method", request.get("method", "GET")),
            (":scheme", "https"),
            (":authority", authority),
            (":path", request.get("path", "/")),
            *request.get("headers", []),
        ]
        body, trailers = request.get("body", 0), request.get("trailers")
        section = [(name.encode(), value.encode()) for name, value in fields]
        self.http.send_headers(stream, section, end_stream=not body and trailers is None)
        if body:
            self.http.send_data(stream, b"x" * body, end_stream=trailers is None)
        if trailers is not None:
            section = [(name.encode(), value.encode()) for name, value in trailers]
            self.http.send_headers(stream, section, end_stream=True)
        return exchange

    async def ask(self, requests, authority):
        sent = [self.send(r, authority) for r in requests for _ in range(r.get("times", 1))]
        self.transmit()
        waiting = [exchange.done for exchange in sent]
        if waiting:
            await asyncio.wait(waiting, timeout=PATIENCE)
        return [exchange.told() for exchange in sent]


async def main(spec):
    name = spec.get("sni", "a.test")
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name=name)
    configuration.idle_timeout = spec.get("patience", PATIENCE)
    if "ca" in spec:
        configuration.load_verify_locations(spec["ca"])
    else:
        configuration.verify_mode = ssl.CERT_NONE
    if "certificate" in spec:
        configuration.load_cert_chain(spec["certificate"], spec["key"])
    result = {"responses": []}
    try:
        where = (spec["address"], spec["port"])
        async with connect(*where, configuration=configuration, create_protocol=Client) as client:
            certificate = client._quic.tls._peer_certificate
            result["certificate"] = format(certificate.serial_number, "x")
            result["responses"] = await client.ask(spec.get("requests", []), spec.get("authority", name))
            if spec.get("hold"):
                print("ready", flush=True)
                await asyncio.wait_for(client.warned.wait(), PATIENCE)
                late = await client.ask(spec.get("late", []), spec.get("authority", name))
                await asyncio.wait_for(client.over.wait(), PATIENCE)
                result["late"] = late
            result["goaways"], result["closed"] = client.goaways(), client.closed
    except Exception as error:  # the reason is the result
        result["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(result))


asyncio.run(main(json.loads(sys.argv[1])))
