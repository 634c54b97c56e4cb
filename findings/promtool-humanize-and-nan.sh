#!/bin/sh
# promtool 2.42.0, of Debian 12: two things about unit tests of alert rules.
# Expected: `{{ $value | humanize }}` of 0.75 reads 0.75, as a person would write it; and an expected sample `value: .nan`
#       (YAML's NaN) is met by a NaN.
# Seen: humanize writes 750m (thousandths), which in an alert on a share or on seconds reads as 750 million or minutes:
#       `printf "%.2f"` or humanizePercentage say what is meant. And no value that a test can expect is a NaN: it fails
#       with "exp: NaN, got: NaN"; `count(x != x)`, which counts NaNs, can be expected.
# It bites who tests that a ratio of an idle window, 0 / 0, raises no alert. Other systems than Debian 12: see the pin.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
version=2.42.0+ds-5+deb12u1
apt-get download -qq "prometheus=$version" 2>/dev/null || { apt-get update -qq && apt-get download -qq "prometheus=$version"; }
dpkg -x prometheus_*.deb .
cat > rules.yaml <<'YAML'
groups:
  - name: findings
    rules:
      - alert: ManyRefused
        expr: refused_share > 0.5
        annotations:
          humanized: '{{ $value | humanize }}'
          printed: '{{ $value | printf "%.2f" }}'
      - record: idle_share
        expr: refused / asked
YAML

# A test file $1 of the rules, whose checks come on standard input.
test_of() {
    {
        printf 'rule_files: [rules.yaml]\ntests:\n  - interval: 1m\n    input_series:\n'
        for series in "refused_share 0.75" "refused 0" "asked 0"; do
            echo "      - {series: ${series% *}, values: '${series#* }x2'}"
        done
        sed 's/^/    /'
    } >"$1"
}

# Whether promtool finds the test $1 right; what it says goes to $1.log.
right() {
    usr/bin/promtool test rules "$1" >"$1.log" 2>&1
}

changed=0
for text in 0.75 750m; do
    test_of "$text.yaml" <<YAML
alert_rule_test:
  - eval_time: 1m
    alertname: ManyRefused
    exp_alerts: [{exp_annotations: {humanized: $text, printed: '0.75'}}]
YAML
done
test_of nan.yaml <<'YAML'
promql_expr_test:
  - {expr: idle_share, eval_time: 1m, exp_samples: [{labels: idle_share, value: .nan}]}
YAML
test_of count.yaml <<'YAML'
promql_expr_test:
  - {expr: count(idle_share != idle_share), eval_time: 1m, exp_samples: [{labels: '{}', value: 1}]}
YAML
echo "Expected: humanized 0.75; a NaN where .nan is expected"
! right 0.75.yaml && right 750m.yaml || changed=1
echo "Seen: $(grep -o 'humanized="[^"]*"' 0.75.yaml.log | tail -n 1)"
! right nan.yaml && grep -q 'got:.*NaN' nan.yaml.log && right count.yaml || changed=1
echo "Seen:" $(sed -n 's/^ *\(exp:\|got:\)/\1/p' nan.yaml.log)
exit "$changed"
