#!/bin/sh
# Chat and vote from a shell.  OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=… sh examples/curl.sh
set -eu
ask() {
    curl --silent --show-error --fail-with-body --header "Authorization: Bearer ${OPENAI_API_KEY:-}" \
        --header "Content-Type: application/json" "$OPENAI_BASE_URL/$1" --data "$2"
}
answer=$(ask chat/completions '{"messages": [{"role": "user", "content": "What is a gate?"}]}')
echo "$answer"
id=$(printf %s "$answer" | sed 's/^{"id":"\([^"]*\)".*/\1/')
# The key makes it safe to run the vote again: it is the same vote.
ask feedback "{\"thumb\": {\"answer\": {\"completion_id\": \"$id\"}, \"up\": true}, \"idempotency_key\": \"$id-up\"}"
