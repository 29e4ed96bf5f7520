#!/bin/bash
# http-ok PORT PATH: succeeds if this machine's PORT answers a GET of PATH with 200. Bash alone, for images without curl.
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
IFS=' ' read -r _ status _ <&3
[ "$status" = 200 ]
