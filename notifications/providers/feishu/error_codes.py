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

from notifications.providers.response_rules import BUSY, CONFIG, CONTENT, STATUSES, TROUBLE, UNKNOWN, Code, Table

_REMOVED = "the bot was removed or the address is wrong: enter the new one"
_ENABLE = "switch the bot on, or add it to its group again"
_ALLOW = "allow our address there, or switch the list off"
_SIGNATURE = "enter the bot's signing secret, and check the clocks"
_KEYWORD = "add a word that is in our title to the bot's keywords, or remove them"
_BEARER = "enter the token of the trigger"
_RIGHTS = "let the bot speak there: membership, scope, permissions, muting"

# fmt: off
CODES = (
    #    code       message              meaning  what a person does            entrance, source
    Code(2200,      "",                  TROUBLE, "",                           "A L openclaw#70879"),
    Code(9499,      "too many request",  BUSY,    "",                           "A M kubesphere feishu.go and 4 more"),
    Code(9499,      "",                  CONTENT, "over 20 KB, or malformed",   "A H bot guide; at HTTP 400 too"),
    Code(11232,     "",                  BUSY,    "",                           "A D H; at each full and half hour"),
    Code(11246,     "",                  CONTENT, "the card cannot be shown",   "A M; the bot sends a text instead"),
    Code(19001,     "",                  CONFIG,  _REMOVED,                     "A M very many"),
    Code(19002,     "",                  CONTENT, "",                           "A M TrendRadar#998"),
    Code(19007,     "",                  CONFIG,  _ENABLE,                      "A M"),
    Code(19021,     "",                  CONFIG,  _SIGNATURE,                   "A H; the bot signs once more first"),
    Code(19022,     "",                  CONFIG,  _ALLOW,                       "A H"),
    Code(19024,     "",                  CONFIG,  _KEYWORD,                     "A H; never repeated blindly"),
    Code(99991400,  "",                  BUSY,    "",                           "D H gateway, with HTTP 429 or 400"),
    Code(800005652, "",                  BUSY,    "",                           "C H; a second at least"),
    Code(800005649, "",                  CONFIG,  _BEARER,                      "C H"),
    Code(800005650, "",                  CONFIG,  _ALLOW,                       "C H"),
    Code(800004509, "",                  CONFIG,  "switch the workflow on",     "C H"),
    Code(800005647, "",                  CONTENT, "over 4 MB",                  "C H"),
    Code(800006003, "",                  CONTENT, "not JSON",                   "C H"),
    Code(800005646, "",                  CONFIG,  "the flow triggers itself",   "C H"),
    Code(230001,    "",                  CONTENT, "",                           "D H how-to-resolve-error-230001"),
    Code(230020,    "",                  BUSY,    "",                           "D M; live test in openclaw#89659"),
    Code(230049,    "",                  UNKNOWN, "see whether it arrived",     "D M being sent: never repeat blindly"),
    Code(230002,    "",                  CONFIG,  _RIGHTS,                      "D M not in the group"),
    Code(230006,    "",                  CONFIG,  _RIGHTS,                      "D M bot ability off"),
    Code(230013,    "",                  CONFIG,  _RIGHTS,                      "D M user out of scope"),
    Code(230027,    "",                  CONFIG,  _RIGHTS,                      "D M permission"),
    Code(230035,    "",                  CONFIG,  _RIGHTS,                      "D M send denied, muted"),
    Code(230025,    "",                  CONTENT, "too long",                   "D M"),
    Code(230022,    "",                  CONTENT, "called sensitive",           "D M"),
    Code(230028,    "",                  CONTENT, "held back by DLP",           "D M"),
    Code(230099,    "",                  CONTENT, "the card cannot be made",    "D M larksuite/node-sdk#94"),
)
# fmt: on

FEISHU = Table(CODES, STATUSES)
