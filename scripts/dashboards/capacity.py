"""What is scarce: the engine's cache and queue, processors, memory, disks, the reward service, the trainer."""

from scripts.dashboards.spec import COUNTED, Dashboard, Limits, Panel, Row, above, below, quantiles

ENGINE = Row(
    "Has the engine room?",
    (
        Panel(
            title="Requests in the engine",
            what="Running together, and waiting for room in the cache, of all engines.",
            good="Nothing waits.",
            do="Waiting for minutes: more pods (KEDA scales on this), or a larger cache (`chat.engine.kv_cache_gib`).",
            queries={
                "running": "sum(vllm:num_requests_running{})",
                "waiting": "sum(vllm:num_requests_waiting{})",
            },
            unit="none",
            needs="vLLM",
        ),
        Panel(
            title="KV cache in use",
            what="Of each engine.",
            good="Below 0.9.",
            do=(
                "Full: requests wait or are preempted. More memory for it, fewer `chat.engine.max_num_seqs`, or more "
                "pods."
            ),
            queries={"{{pod}}": "max by (pod) (vllm:kv_cache_usage_perc{})"},
            unit="percentunit",
            limits=below(0.8, 0.95),
            most=1,
            needs="vLLM",
        ),
        Panel(
            title="Tokens by the engine",
            what="Prompt tokens read and tokens written a second, of all engines.",
            good="Below what the sizing bench measured for this model.",
            do="At the plateau more requests only wait longer: more pods.",
            queries={
                "read": f"sum(rate(vllm:prompt_tokens_total{{}}{COUNTED}))",
                "written": f"sum(rate(vllm:generation_tokens_total{{}}{COUNTED}))",
            },
            unit="none",
            needs="vLLM",
        ),
        Panel(
            title="Engine's time to the first token",
            what="Inside the engine, from a request's arrival there.",
            good="Near the chat service's own figure.",
            do="Much shorter than the chat service's: the time goes into swaps, limits or the log.",
            queries=quantiles("vllm:time_to_first_token_seconds"),
            unit="s",
            needs="vLLM",
        ),
        Panel(
            title="Engine's time between tokens",
            what="Between two tokens of one answer.",
            good="Steady under load.",
            do=(
                "It rises with the number of requests that run together: fewer `chat.engine.max_num_seqs` makes"
                " answers faster, "
                "and others wait."
            ),
            queries=quantiles("vllm:inter_token_latency_seconds"),
            unit="s",
            needs="vLLM",
        ),
        Panel(
            title="Prefix cache",
            what="Share of prompt tokens that were found in the cache.",
            good="High for conversations of several turns. It is emptied by every swap.",
            do="Low without swaps: requests of one conversation reach different pods.",
            queries={
                "found": f"sum(rate(vllm:prefix_cache_hits_total{{}}{COUNTED}))"
                f" / sum(rate(vllm:prefix_cache_queries_total{{}}{COUNTED}))",
            },
            unit="percentunit",
            most=1,
            needs="vLLM",
        ),
    ),
)

MACHINES = Row(
    "Have processes room?",
    (
        Panel(
            title="Processors",
            what="Cores that each service uses.",
            good="Below its limit.",
            do="Chat at one core: it has one event loop, add pods. Trainer and reward: more threads, or a GPU.",
            queries={
                "{{job}} {{pod}}": f'sum by (job, pod) (rate(process_cpu_seconds_total{{job=~"$service"}}{COUNTED}))'
            },
            unit="none",
        ),
        Panel(
            title="Memory",
            what="Resident memory of each service; the engine's own processes are not in it.",
            good="Level.",
            do="It grows for hours: report it. Near the limit: raise it, an out-of-memory kill costs more.",
            queries={"{{job}} {{pod}}": 'max by (job, pod) (process_resident_memory_bytes{job=~"$service"})'},
            unit="bytes",
        ),
        Panel(
            title="Open files",
            what="Share of the files that a process may open.",
            good="Below 0.7.",
            do="Every connection is one: a higher `ulimit -n`, or more pods.",
            queries={
                "{{job}} {{pod}}": 'max by (job, pod) (process_open_fds{job=~"$service"}'
                ' / process_max_fds{job=~"$service"})',
            },
            unit="percentunit",
            limits=below(0.7, 0.9),
            most=1,
        ),
        Panel(
            title="Free on disks",
            what="Of the file systems that services keep their state on.",
            good="More than 20 %.",
            do="A larger volume, or a shorter retention of the log and fewer `trainer.keep_versions`.",
            queries={
                "{{job}} {{pod}} {{folder}}": 'min by (job, pod, folder) (rlhf_state_free_bytes{job=~"$service"}'
                ' / rlhf_state_size_bytes{job=~"$service"})',
            },
            unit="percentunit",
            limits=above(0.1, 0.2),
            most=1,
            runbooks=("RlhfDiskFills",),
        ),
        Panel(
            title="GPU memory",
            what="Share of each GPU's memory in use.",
            good="Level: the engine takes its share at the start.",
            do="Near 1 on the trainer's: smaller minibatches, or LoRA.",
            queries={
                "{{job}} {{pod}} GPU {{gpu}}": "max by (job, pod, gpu) (rlhf_gpu_memory_used_bytes{}"
                " / rlhf_gpu_memory_size_bytes{})",
            },
            unit="percentunit",
            limits=below(0.95, 0.99),
            most=1,
            needs="a GPU",
        ),
        Panel(
            title="GPU utilisation",
            what="Share of time in which a kernel runs on each GPU.",
            good="High on engines under load; the trainer's has pauses.",
            do="Low though requests wait: the processor is the bottleneck.",
            queries={"{{job}} {{pod}} GPU {{gpu}}": "max by (job, pod, gpu) (rlhf_gpu_utilization_ratio{})"},
            unit="percentunit",
            most=1,
            needs="a GPU",
        ),
    ),
)

LEARNING = Row(
    "Do scoring and learning keep up?",
    (
        Panel(
            title="Answers scored",
            what="Answers that the reward service scores a second.",
            good="As many as rollouts ask for.",
            do="See how long they wait, beside.",
            queries={"{{pod}}": f"sum by (pod) (rate(rlhf_reward_items_total{{}}{COUNTED}))"},
            unit="none",
        ),
        Panel(
            title="Time to score",
            what="From a request's arrival at the reward service to its scores.",
            good="Below a second.",
            do="A queue that grows: more replicas (the HPA scales on the processor).",
            queries=quantiles("rlhf_reward_latency_seconds"),
            unit="s",
        ),
        Panel(
            title="Waiting for a forward pass, and answers of one",
            what="Answers that wait, and how many share a pass, on average.",
            good="Passes are full when something waits.",
            do="Waiting with small passes: `reward.max_batch_tokens`.",
            queries={
                "waiting": "sum(rlhf_reward_queue{})",
                "in one pass": f"sum(rate(rlhf_reward_batch_size_sum{{}}{COUNTED}))"
                f" / sum(rate(rlhf_reward_batch_size_count{{}}{COUNTED}))",
            },
            unit="none",
        ),
        Panel(
            title="How busy the trainer is",
            what="Share of time in which it computes rather than waits for votes.",
            good="Below 0.8.",
            do=(
                "Near 1: votes come faster than they are learned from. More votes a cycle, more threads, a GPU, more "
                "nodes."
            ),
            queries={"busy": "sum(rate(rlhf_trainer_phase_seconds_sum{}[10m]))"},
            unit="percentunit",
            limits=below(0.8, 0.95),
            width=12,
            runbooks=("RlhfConsumerLag",),
        ),
        Panel(
            title="Started again",
            what="Since when each service's process runs.",
            good="Since the last rollout.",
            do="A short time, again and again: `kubectl describe pod` says why it ended.",
            queries={"{{job}} {{pod}}": 'min by (job, pod) (time() - process_start_time_seconds{job=~"$service"})'},
            unit="s",
            kind="stat",
            limits=Limits("blue"),
            width=12,
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="rlhf-capacity",
    title="rlhf-online · Capacity",
    what="Have engine, processes and trainer room, and what to add if not? docs/sizing.md says how much is needed.",
    variables=("service",),
    rows=(ENGINE, MACHINES, LEARNING),
)
