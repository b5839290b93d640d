"""Watches the wire: writes `source destination hex` for the payload of each TCP segment on eth0 to FILE, until it is killed.
Prints `watching` once no segment can be missed any more.

  wire.py FILE
"""
import socket
import sys

ETH_P_ALL = 3
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
wire.bind(("eth0", ETH_P_ALL))
out = open(sys.argv[1], "w", buffering=1)
print("watching", flush=True)
while True:
    packet = wire.recv(1 << 17)
    if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
        continue
    tcp = packet[(packet[0] & 15) * 4 : int.from_bytes(packet[2:4], "big")]
    payload = tcp[(tcp[12] >> 4) * 4 :]
    if payload:
        ends = [f"{socket.inet_ntoa(packet[a:a + 4])}:{int.from_bytes(tcp[p:p + 2], 'big')}" for a, p in ((12, 0), (16, 2))]
        out.write(f"{ends[0]} {ends[1]} {payload.hex()}\n")
