#!/bin/sh
# Chat, continue a text and vote, by what the service says of itself (reflection) alone.
# RLHF_GRPC=127.0.0.1:8001 OPENAI_API_KEY=… sh examples/grpcurl.sh          (-plaintext goes where the service speaks TLS)
set -eu
ask() {
    grpcurl -plaintext -H "authorization: Bearer ${OPENAI_API_KEY:-}" -d "$2" "$RLHF_GRPC" "rlhf.v1.ChatService/$1"
}
answer=$(ask Complete '{"messages": [{"role": "user", "content": "What is a gate?"}]}')
echo "$answer"
id=$(printf %s "$answer" | sed -n 's/.*"completion_id": *"\([^"]*\)".*/\1/p')
ask StreamCompleteText '{"request": {"prompt": "A gate is"}}'
# The key makes it safe to run the vote again: it is the same vote.
ask SendFeedback "{\"feedback\": {\"thumb\": {\"answer\": {\"completion_id\": \"$id\"}, \"up\": true}}, \"idempotency_key\": \"$id-up\"}"
