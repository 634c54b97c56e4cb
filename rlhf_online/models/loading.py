"""One model at a time is made in a process.

`from_pretrained` (transformers 5.19) replaces `PreTrainedModel.tie_weights` and torch's default dtype for the whole
process until it returns. Two threads in it at once put back what the other had replaced: from then on no model's
output layer is tied to its embedding, and a tied checkpoint without an output layer gets a random one, in silence
(findings/transformers-loads-one-at-a-time.sh).
"""

import threading

LOADING = threading.Lock()
"""Held while transformers makes or loads a model."""
