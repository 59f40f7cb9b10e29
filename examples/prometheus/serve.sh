#!/bin/sh
# Answers one HTTP request on standard input with the metrics of a mount, for Prometheus. It needs no root.
# Do not start socat in the mount: a shell looks at its working directory first, and hangs if the server is stopped.
#
#   cd / && socat TCP-LISTEN:9917,bind=127.0.0.1,reuseaddr,fork EXEC:"$OLDPWD/examples/prometheus/serve.sh /mnt/virt"
#   curl -s http://127.0.0.1:9917/metrics
mount=${1:-/mnt/virt}
while read -r line && [ "${#line}" -gt 1 ]; do :; done # the request ends with an empty line, which is a carriage return
# The time limit is for a server that is stopped.
if metrics=$(timeout 5 cat "$mount/metrics" 2>/dev/null); then
    printf 'HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\r\n%s\n' "$metrics"
else
    printf 'HTTP/1.0 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\nno virtfs answers at %s\n' "$mount"
fi
