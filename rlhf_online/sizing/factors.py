"""What is multiplied: measured by a bench, published, a default of the settings, or assumed, and said so."""

from dataclasses import dataclass

GIB = 1 << 30
_ASSUMED = "assumed: measure it"


@dataclass(frozen=True, slots=True)
class Factor:
    """`value` of something, in `unit`, and where it comes from."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class Gpu:
    """Memory in GB, its bandwidth in TB/s, dense bfloat16 in TFLOP/s."""

    memory: float
    bandwidth: float
    bfloat16: float


GPUS = {
    "a100": Gpu(80, 2.039, 312),
    "h100": Gpu(80, 3.35, 989),
    "h200": Gpu(141, 4.8, 989),
    "l40s": Gpu(48, 0.864, 362),
}
"""SXM where there is one; from NVIDIA's data sheets, without sparsity."""

FACTORS = {
    "answer_record": Factor(227, "bytes of an answer's record without its tokens", "bench sizing"),
    "prompt_token": Factor(6.8, "bytes a prompt token adds to it (id and text)", "bench sizing"),
    "answer_token": Factor(10.8, "bytes an answer's token adds to it (id, log-prob, text)", "bench sizing"),
    "vote_record": Factor(164, "bytes of a thumb's record", "bench sizing"),
    "shipped": Factor(16_042, "records a second that one forwarder ships", "bench forwarder"),
    "consumed": Factor(40_187, "records a second that the trainer reads from Kafka", "bench forwarder"),
    "joined": Factor(4_800, "votes a second that are joined with their answers", "bench join"),
    "taken": Factor(7_900, "answers a second that the join takes in", "bench join"),
    "open_answer_disk": Factor(
        945, "bytes on disk of an answer that a vote may come for", "bench join: 8.8 GiB, 10 million"
    ),
    "open_answer_memory": Factor(44, "bytes of memory of one", "bench join: 418 MiB of 10 million"),
    "streams": Factor(776, "streamed answers a second through one gateway, one core", "bench gateway"),
    "version_weight": Factor(
        4.0, "bytes a weight of a published version (float32; 2 for a model in bfloat16)", "bench sizing: 4.02"
    ),
    "checkpoint_weight": Factor(12.3, "bytes a trained weight in a checkpoint, and its parity", "bench sizing: 12.1"),
    "ledger_entry": Factor(
        17, "bytes that the trainer keeps of every event, for ever", "rlhf_online/training/ledger.py"
    ),
    "adapter": Factor(
        0.0026,
        "share of the weights that an adapter has",
        "rank 8 on all linear layers of Llama 3 8B: 20,971,520 of 8,030,261,248",
    ),
    "trainer_efficiency": Factor(0.34, "of bfloat16's peak while the trainer learns", "bench trainer: .34"),
    "trainer_busy": Factor(0.5, "of the time it computes gradients, the rest it samples and judges", _ASSUMED),
    "engine_bandwidth": Factor(0.55, "of the memory's bandwidth while answers are written", _ASSUMED),
    "engine_compute": Factor(0.4, "of bfloat16's peak while prompts are read", "arXiv 2407.21783, for training"),
    "flops_trained": Factor(6, "operations a weight and token that is learned from", "arXiv 2001.08361"),
    "flops_read": Factor(2, "operations a weight and token that is only read", "arXiv 2001.08361"),
    "partition": Factor(10e6, "bytes a second of one partition", "Confluent, how to choose the number of partitions"),
    "swap_s": Factor(60, "seconds within which all pods have a version", "default of chat.swap.max_lag_s"),
    "gpu_memory": Factor(0.9, "of a GPU's memory can be used", "chat.engine.gpu_memory_utilization"),
}
SETTINGS = {
    "per_cycle": Factor(512, "answers of one policy update", "trainer.rollout.per_cycle"),
    "policy_passes": Factor(4, "passes over them", "trainer.policy.epochs"),
    "policy_reads": Factor(
        3, "times they are read without learning: old, reference, what moved", "docs/results.md, trainer"
    ),
    "vote_passes": Factor(2, "passes over new votes", "trainer.reward.epochs"),
    "replay": Factor(1, "old votes beside each new one", "trainer.reward.replay"),
    "held_back": Factor(0.2, "share of votes that teach the gate's own reward model", "trainer.gate.held_back.share"),
    "checkpoints": Factor(4, "checkpoints: three kept, one being written", "trainer.keep_checkpoints"),
    "versions": Factor(11, "versions of a kind that keep their weights, the first one always", "trainer.keep_versions"),
    "open_days": Factor(1, "days that an answer waits for votes", "trainer.join_window_s"),
    "conversations": Factor(4 * GIB, "bytes that a chat pod keeps for people to read", "chat.keep_conversations_gib"),
    "batch": Factor(256, "answers that an engine writes at once at most", "chat.engine.max_num_seqs on a GPU"),
}
