"""What the responses of Feishu and Lark mean. Their APIs share one numbering of error codes.

The APIs: A custom bot, B Flow webhook, C Base automation, D bot API. The codes of B are not documented, so every rule
applies to B too. We do not call D, but flows and gateways forward its codes. Most failures have HTTP status 200, so the
code in the body decides first. A response that asks us to slow down may contain a time in `Retry-After` or
`x-ogw-ratelimit-reset` (evidence H).

10101, 10500 and 99991663 have no rule on purpose: the sources contradict each other.

Evidence: H the vendor's own pages (custom bot guide, rate limits and error 230001 on open.feishu.cn and
open.larkoffice.com; Base automation on www.feishu.cn/hc and www.larksuite.com/hc), M several independent programs or
copies of the pages, L one source. The field `source` of a rule begins with the APIs and the evidence.
"""

from __future__ import annotations

from notifications.providers.response_rules import (
    ENDPOINT_CONFIG,
    MESSAGE_REFUSED,
    OUTCOME_UNKNOWN,
    RATE_LIMITED,
    SERVER_ERROR,
    STATUS_RULES,
    CodeRule,
    RuleTable,
)

_TOO_OFTEN = "too (many|often|fast)|frequen|rate.?limit|throttl|flow.?control|频繁|频率|限流"
"""Words for "too often". The vendor uses 9499 for malformed requests too; it has several texts for both."""
_REMOVED = "the bot was removed or the address is wrong: enter the new address"
_ENABLE = "enable the bot, or add it to its group again"
_ALLOWLIST = "add our IP address to the allowlist, or disable it"
_SIGNATURE = "enter the bot's signing secret, and check the clocks"
_KEYWORD = "add a word of our title to the bot's keywords, or remove the keywords"
_BEARER = "enter the bearer token of the trigger"
_PERMISSION = "check the bot's membership, scope, permissions and muting"

# fmt: off
CODE_RULES = (
    #        code, message, meaning,     remedy,                         source
    CodeRule(2200,      "", SERVER_ERROR,    "",                             "A L openclaw#70879"),
    CodeRule(9499,      _TOO_OFTEN, RATE_LIMITED, "",                        "A M 4 programs; words of 11232"),
    CodeRule(9499,      "", MESSAGE_REFUSED, "over 20 KB, or malformed",     "A H bot guide; at HTTP 400 too"),
    CodeRule(10002,     "", MESSAGE_REFUSED, "the text is empty",            "A M text is nil"),
    CodeRule(11232,     "", RATE_LIMITED,    "",                             "A D H; frequent at full and half hours"),
    CodeRule(11246,     "", MESSAGE_REFUSED, "Feishu cannot show the card",  "A M; the provider then sends a text"),
    CodeRule(19001,     "", ENDPOINT_CONFIG, _REMOVED,                       "A M very many"),
    CodeRule(19002,     "", MESSAGE_REFUSED, "",                             "A M TrendRadar#998"),
    CodeRule(19007,     "", ENDPOINT_CONFIG, _ENABLE,                        "A M"),
    CodeRule(19036,     "", MESSAGE_REFUSED, "over 30 KB",                   "A M alertmanager-webhook-feishu#3"),
    CodeRule(19021,     "", ENDPOINT_CONFIG, _SIGNATURE,                     "A H; after a second signature"),
    CodeRule(19022,     "", ENDPOINT_CONFIG, _ALLOWLIST,                     "A H"),
    CodeRule(19024,     "", ENDPOINT_CONFIG, _KEYWORD,                       "A H"),
    CodeRule(99991400,  "", RATE_LIMITED,    "",                             "D H gateway, with HTTP 429 or 400"),
    CodeRule(800005652, "", RATE_LIMITED,    "",                             "C H; wait at least 1 s"),
    CodeRule(800005649, "", ENDPOINT_CONFIG, _BEARER,                        "C H"),
    CodeRule(800005650, "", ENDPOINT_CONFIG, _ALLOWLIST,                     "C H"),
    CodeRule(800004509, "", ENDPOINT_CONFIG, "enable the workflow",          "C H"),
    CodeRule(800005647, "", MESSAGE_REFUSED, "over 4 MB",                    "C H"),
    CodeRule(800006003, "", MESSAGE_REFUSED, "not JSON",                     "C H"),
    CodeRule(800005646, "", ENDPOINT_CONFIG, "the flow triggers itself",     "C H"),
    CodeRule(230001,    "", MESSAGE_REFUSED, "",                             "D H how-to-resolve-error-230001"),
    CodeRule(230020,    "", RATE_LIMITED,    "",                             "D M; live test in openclaw#89659"),
    CodeRule(230049,    "", OUTCOME_UNKNOWN, "check whether it arrived",     "D M; being sent, so not retried"),
    CodeRule(230002,    "", ENDPOINT_CONFIG, _PERMISSION,                    "D M not in the group"),
    CodeRule(230006,    "", ENDPOINT_CONFIG, _PERMISSION,                    "D M bot ability off"),
    CodeRule(230013,    "", ENDPOINT_CONFIG, _PERMISSION,                    "D M user out of scope"),
    CodeRule(230027,    "", ENDPOINT_CONFIG, _PERMISSION,                    "D M permission"),
    CodeRule(230035,    "", ENDPOINT_CONFIG, _PERMISSION,                    "D M send denied, muted"),
    CodeRule(230025,    "", MESSAGE_REFUSED, "too long",                     "D M"),
    CodeRule(230022,    "", MESSAGE_REFUSED, "refused as sensitive",         "D M"),
    CodeRule(230028,    "", MESSAGE_REFUSED, "blocked by DLP",               "D M"),
    CodeRule(230099,    "", MESSAGE_REFUSED, "Feishu cannot create the card", "D M larksuite/node-sdk#94"),
)
# fmt: on

FEISHU_RULES = RuleTable(CODE_RULES, STATUS_RULES)
