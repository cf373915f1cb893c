"""What Feishu and Lark answer, for all of their entrances: they share one numbering.

Entrances: A custom bot, B Flow, C Base automation, D app bot API. B's codes are documented nowhere, so every row holds
for it; D is not called by us, but flows and gateways pass its codes on. Most failures come with HTTP 200, so the code
decides first. Whatever asks us to slow down may also say for how long, in `Retry-After` or `x-ogw-ratelimit-reset` (H).
Left out on purpose, since the sources contradict each other: 10101, 10500 and 99991663 stay unmapped.

Sources: H the vendor's own pages (open.feishu.cn and open.larkoffice.com: custom bot guide, frequency control, error
230001; the Base automation pages of www.feishu.cn/hc and www.larksuite.com/hc), M several independent programs or
copies of the pages, L one.
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

_REMOVED = "the bot was removed or the address is wrong: enter the new one"
_ENABLE = "switch the bot on, or add it to its group again"
_ALLOW = "allow our address there, or switch the list off"
_SIGNATURE = "enter the bot's signing secret, and check the clocks"
_KEYWORD = "add a word that is in our title to the bot's keywords, or remove them"
_BEARER = "enter the token of the trigger"
_RIGHTS = "let the bot speak there: membership, scope, permissions, muting"

# fmt: off
CODE_RULES = (
    #        code, message, meaning,     remedy,                        APIs, evidence, source
    CodeRule(2200,      "", SERVER_ERROR,    "",                            "A L openclaw#70879"),
    CodeRule(9499,      "too many request", RATE_LIMITED, "", "A M kubesphere feishu.go and 4 more"),
    CodeRule(9499,      "", MESSAGE_REFUSED, "over 20 KB, or malformed",    "A H bot guide; at HTTP 400 too"),
    CodeRule(11232,     "", RATE_LIMITED,    "",                            "A D H; at each full and half hour"),
    CodeRule(11246,     "", MESSAGE_REFUSED, "the card cannot be shown",    "A M; the bot sends a text instead"),
    CodeRule(19001,     "", ENDPOINT_CONFIG, _REMOVED,                      "A M very many"),
    CodeRule(19002,     "", MESSAGE_REFUSED, "",                            "A M TrendRadar#998"),
    CodeRule(19007,     "", ENDPOINT_CONFIG, _ENABLE,                       "A M"),
    CodeRule(19021,     "", ENDPOINT_CONFIG, _SIGNATURE,                    "A H; the bot signs once more first"),
    CodeRule(19022,     "", ENDPOINT_CONFIG, _ALLOW,                        "A H"),
    CodeRule(19024,     "", ENDPOINT_CONFIG, _KEYWORD,                      "A H; never repeated blindly"),
    CodeRule(99991400,  "", RATE_LIMITED,    "",                            "D H gateway, with HTTP 429 or 400"),
    CodeRule(800005652, "", RATE_LIMITED,    "",                            "C H; a second at least"),
    CodeRule(800005649, "", ENDPOINT_CONFIG, _BEARER,                       "C H"),
    CodeRule(800005650, "", ENDPOINT_CONFIG, _ALLOW,                        "C H"),
    CodeRule(800004509, "", ENDPOINT_CONFIG, "switch the workflow on",      "C H"),
    CodeRule(800005647, "", MESSAGE_REFUSED, "over 4 MB",                   "C H"),
    CodeRule(800006003, "", MESSAGE_REFUSED, "not JSON",                    "C H"),
    CodeRule(800005646, "", ENDPOINT_CONFIG, "the flow triggers itself",    "C H"),
    CodeRule(230001,    "", MESSAGE_REFUSED, "",                            "D H how-to-resolve-error-230001"),
    CodeRule(230020,    "", RATE_LIMITED,    "",                            "D M; live test in openclaw#89659"),
    CodeRule(230049,    "", OUTCOME_UNKNOWN, "see whether it arrived",      "D M being sent: never repeat blindly"),
    CodeRule(230002,    "", ENDPOINT_CONFIG, _RIGHTS,                       "D M not in the group"),
    CodeRule(230006,    "", ENDPOINT_CONFIG, _RIGHTS,                       "D M bot ability off"),
    CodeRule(230013,    "", ENDPOINT_CONFIG, _RIGHTS,                       "D M user out of scope"),
    CodeRule(230027,    "", ENDPOINT_CONFIG, _RIGHTS,                       "D M permission"),
    CodeRule(230035,    "", ENDPOINT_CONFIG, _RIGHTS,                       "D M send denied, muted"),
    CodeRule(230025,    "", MESSAGE_REFUSED, "too long",                    "D M"),
    CodeRule(230022,    "", MESSAGE_REFUSED, "called sensitive",            "D M"),
    CodeRule(230028,    "", MESSAGE_REFUSED, "held back by DLP",            "D M"),
    CodeRule(230099,    "", MESSAGE_REFUSED, "the card cannot be made",     "D M larksuite/node-sdk#94"),
)
# fmt: on

FEISHU_RULES = RuleTable(CODE_RULES, STATUS_RULES)
