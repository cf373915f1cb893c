"""Webhook addresses that must never be called, by the trick they use. PORT stands for a listener's port."""

from __future__ import annotations

KEY = "canary0123456789abcdef0123456789"
PATH = f"/flow/api/trigger-webhook/{KEY}"
GOOD = f"https://www.feishu.cn{PATH}"

OTHER_HOSTS = (
    *("evil.example", "feishu.com", "larksuite.cn", "lark.com", "open.feishu.cn", "open.larksuite.com"),
    *("feishu.cn.evil.example", "www.feishu.cn.evil.example", "evilfeishu.cn", "www-feishu.cn", "wwwfeishu.cn"),
    *("xfeishu.cn", "evil.feishu.cn", "a.www.feishu.cn", "www.www.feishu.cn", "feishu.cn.", "www.feishu.cn."),
    *("www.feishu.cn..", ".feishu.cn", "www..feishu.cn", "feishu", "cn", "*.feishu.cn", "localhost", "LOCALHOST"),
    *("localhost.localdomain", "ip6-localhost", "127.0.0.1.nip.io", "localtest.me", "metadata.google.internal"),
    *("WWW.FEISHU.CN", "Www.Feishu.Cn", "www.feishu.cn,evil.example", "www.feishu.cn;evil.example", ""),
)
USERS = (
    *("user@www.feishu.cn", "user:pw@www.feishu.cn", "@www.feishu.cn"),
    *(":@www.feishu.cn", "www.feishu.cn@evil.example"),
    *("www.feishu.cn@127.0.0.1:PORT", "www.feishu.cn:443@127.0.0.1:PORT", "www.feishu.cn%40127.0.0.1:PORT"),
    *("a@b@www.feishu.cn", "127.0.0.1:PORT@www.feishu.cn", "www.feishu.cn&@127.0.0.1:PORT"),
)
PORTS = (
    *("www.feishu.cn:443", "www.feishu.cn:", "www.feishu.cn:80", "www.feishu.cn:8443", "www.feishu.cn:0"),
    *("www.feishu.cn:PORT", "www.feishu.cn:65536", "www.feishu.cn:-1", "www.feishu.cn:00443", "www.feishu.cn:4 43"),
    *("www.feishu.cn:https", "www.feishu.cn:443:443", "www.feishu.cn:٤٤٣", "localhost:PORT", "www.larksuite.com:443"),
)
LOOKALIKES = (
    *("www.feіshu.cn", "www.fеishu.cn", "www.feishu.сn", "ｗｗｗ.feishu.cn", "www.feishu.ｃｎ", "www.feishu。cn"),
    *("www．feishu.cn", "www.feishu｡cn", "www.feishu․cn", "xn--feshu-o2e.cn", "www.xn--feshu-o2e.cn", "ⓦⓦⓦ.feishu.cn"),
    *("www.feiſhu.cn", "www.fei\u200bshu.cn", "www.fei\u200dshu.cn", "www.feishu.cn\ufeff", "www.fei\u00adshu.cn"),
    *("www.\u202efeishu.cn", "www.feishu.cn\u2044evil.example", "www.feishu.cn\uff0fevil.example", "①②⑦.0.0.1:PORT"),
    *("１２７.０.０.１:PORT", "127。0。0。1:PORT", "wwẃ.feishu.cn", "www.feishu.cn\u0300"),
)
ESCAPES = (
    *("www.feishu.cn%00.evil.example", "www.feishu.cn%2eevil.example", "www%2efeishu%2ecn", "www.feishu.cn%23.evil"),
    *("www.feishu.cn%2f@127.0.0.1:PORT", "%77ww.feishu.cn", "www.feishu.cn%0d%0a", "127%2e0%2e0%2e1:PORT", "%6c%6f"),
)
CONTROLS = (
    *(
        "www.feishu.cn\\",
        "evil.example\\@www.feishu.cn",
        "www.feishu.cn\\@127.0.0.1:PORT",
        "127.0.0.1:PORT\\.feishu.cn",
    ),
    *(
        "www.feishu\t.cn",
        "www.feishu.cn\n",
        "www.feishu.cn\r\nHost: evil",
        "www.feishu.cn\x00",
        "www.feishu.cn\x00.evil",
    ),
    *(
        "www.feishu.cn ",
        " www.feishu.cn",
        "www.feishu.cn\x7f",
        "www.feishu.cn\x0b",
        "www.feishu.cn\x1f",
        "w\x08ww.feishu.cn",
    ),
    *("www.feishu.cn\x85", "www.feishu.cn\u00a0", "www.feishu.cn\u2028", "www.feishu.cn\u3000"),
)
IPV4 = (
    *("127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0x7f.0x0.0x0.0x1"),
    *("017700000001", "127.000.000.001", "127.0.0.1.", "127.255.255.254", "0.0.0.0", "0", "10.0.0.1", "172.16.0.1"),
    *("172.31.255.255", "192.168.1.1", "169.254.169.254"),
    *("169.254.170.2", "0xa9fea9fe", "2852039166", "100.100.100.200"),
    *("0251.0376.0251.0376", "100.64.0.1", "100.127.255.254"),
    *("198.18.0.1", "198.19.255.255", "192.0.0.1", "192.0.2.1"),
    *("198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("8.8.8.8", "256.256.256.256", "4294967296"),
)  # fmt: skip
IPV6 = (
    *("::1", "::", "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001", "::ffff:127.0.0.1", "::ffff:7f00:1"),
    *("::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe"),
    *("64:ff9b:1::127.0.0.1", "2002:7f00:1::", "2002:a9fe:a9fe::", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
    *("2001:db8::1", "3fff::1", "100::1", "5f00::1", "fc00::1"),
    *("fd00:ec2::254", "fe80::1", "fe80::1%25lo", "fe80::1%lo"),
    *("fec0::1", "ff02::1", "ff0e::1", "2001:20::1", "2606:4700::5efe:127.0.0.1", "2606:4700:4700::1111", "::1%25lo"),
    *("v1.fe80", "", "::1", "[::1]"),
)  # fmt: skip
SCHEMES = (
    f"http://www.feishu.cn{PATH}",
    f"http://127.0.0.1:PORT{PATH}",
    f"HTTP://www.feishu.cn{PATH}",
    *(
        f"{scheme}://www.feishu.cn{PATH}"
        for scheme in ("ftp", "ws", "wss", "gopher", "dict", "ldap", "httpx", "http s")
    ),
    *(f"{scheme}://127.0.0.1:PORT{PATH}" for scheme in ("ftp", "gopher", "dict", "redis", "http+unix")),
    f"file://{PATH}",
    f"file:///etc/passwd?{PATH}",
    f"data:application/json,{PATH}",
    "javascript:alert(1)",
    f"//www.feishu.cn{PATH}",
    f"www.feishu.cn{PATH}",
    PATH,
    f"https:www.feishu.cn{PATH}",
    f"https:/www.feishu.cn{PATH}",
    f"https:///www.feishu.cn{PATH}",
    f"https:////www.feishu.cn{PATH}",
    f"https:\\\\www.feishu.cn{PATH}",
    f"https//www.feishu.cn{PATH}",
    f"https://https://www.feishu.cn{PATH}",
    f"://www.feishu.cn{PATH}",
    f"url:https://www.feishu.cn{PATH}",
    f"ht\ntps://www.feishu.cn{PATH}",
    f"\x00https://www.feishu.cn{PATH}",
    f"\thttps://www.feishu.cn{PATH}",
    f" {GOOD}",
    f"{GOOD} ",
    f"{GOOD}\n",
    f"\u3000{GOOD}",
    f"\ufeff{GOOD}",
    f"<{GOOD}>",
    f'"{GOOD}"',
    f"{GOOD},{GOOD}",
    f"{GOOD} {GOOD}",
    f"{GOOD}\nhttp://127.0.0.1:PORT/",
)
PATHS = (
    *("", "/", "/flow/api/trigger-webhook", "/flow/api/trigger-webhook/", f"/{KEY}", f"{PATH}/", f"{PATH}/more"),
    *(f"{PATH}?a=b", f"{PATH}?", f"{PATH}?url=http://127.0.0.1:PORT/"),
    *(f"{PATH}#a", f"{PATH}#", f"{PATH}#@127.0.0.1:PORT"),
    *(f"{PATH};a=b", f"{PATH}&a=b", f"{PATH}:443", f"{PATH}@127.0.0.1:PORT", f"?{PATH}", f"#{PATH}", f"/{PATH}"),
    *(f"/flow/..{PATH}", f"/.{PATH}", f"/..{PATH}"),
    *(PATH.replace("/api", "/api/."), PATH.replace("/api", "/api/.././api")),
    *(PATH.replace(KEY, f"../{KEY}"), PATH.replace(KEY, "..")),
    *(PATH.replace(KEY, f"{KEY}/.."), PATH.replace("/api", "//api")),
    *(PATH.replace("/api", "%2fapi"), PATH.replace("flow", "%66low"), PATH.replace(KEY, "%2e%2e%2fcanary01")),
    *(f"{PATH}%00", f"{PATH}%0d%0aX:1", f"{PATH}%3fa=b", f"{PATH}%"),
    *(PATH.replace("/", "\\"), f"{PATH}\\..\\x", f"{PATH}\n"),
    *(f"{PATH}\r\nX-Evil: 1", f"{PATH}\x00", f"{PATH}\t"),
    *(f"{PATH} HTTP/1.1", f"{PATH}\x85", f"{PATH}\u200b", f"{PATH}字"),
    *(PATH.replace("flow", "ﬂow"), PATH.replace("a", "а"), PATH.upper(), PATH.replace("flow", "Flow"), f"{PATH}.json"),
    PATH.replace("/flow/api/trigger-webhook", "/open-apis/bot/v2/hook"),
    *(PATH.replace(KEY, "short12"), f"{PATH}~", f"{PATH}+"),
    *(PATH.replace(KEY, "k" * 129), PATH.replace(KEY, "k" * 2000)),
    *(PATH.replace(KEY, "k" * 100_000), PATH.replace(KEY, "")),
)  # fmt: skip

REFUSED = tuple(
    dict.fromkeys(
        (
            "",
            "not an address",
            "https://",
            *(f"https://{host}{PATH}" for hosts in (OTHER_HOSTS, USERS, PORTS, LOOKALIKES) for host in hosts),
            *(f"https://{host}{PATH}" for hosts in (ESCAPES, CONTROLS) for host in hosts),
            *(f"https://{host}:PORT{PATH}" for host in IPV4),
            *(f"https://[{host}]:PORT{PATH}" for host in IPV6),
            *(f"http://{host}:PORT{PATH}" for host in ("127.0.0.1", "localhost", "[::1]", "0", "2130706433")),
            f"https://[::1{PATH}",
            f"https://::1:PORT{PATH}",
            *SCHEMES,
            *(f"https://www.feishu.cn{path}" for path in PATHS),
        )
    )
)
"""All of them, without duplicates."""
