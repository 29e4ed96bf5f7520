# Runs a server, and kills it when the process that started it is gone, however that went.
# usage: sh -c "$(cat leash.sh)" leash FOLDER COMMAND [ARGUMENT...]
#
# Standard input is a pipe whose other end only the parent holds: it ends when the parent ends, even by
# SIGKILL. Standard output gets one line, the server's process id. Standard error gets the server's output.
# FOLDER, unless it is empty, is removed if the parent could not do that any more. Several servers may share
# it: the last that dies leaves nothing.
folder=$1
shift
exec 3<&0
"$@" </dev/null >&2 3<&- &
server=$!
echo "$server"
exec >&2

# `read` ends when the pipe does: the parent never writes.
(read -r _ <&3; kill -KILL "$server"; exit 0) &
watcher=$!
exec 3<&-

wait "$server"
status=$?
kill -TERM "$watcher" 2>/dev/null
if wait "$watcher"; then
    # The watcher had done its work before it could be stopped: the parent is gone.
    if [ -n "$folder" ]; then
        rm -rf -- "$folder"
    fi
fi
exit "$status"
