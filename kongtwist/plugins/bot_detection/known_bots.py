"""Which User-Agents are bots'.

The names are those that Kong 3.9 knows, which come from the project ua-parser (``uap-core``, ``regexes.yaml``; Apache License
2.0). They are told here by what makes the difference only: versions and names around a name that decides are left out.
"""

from __future__ import annotations

import re

__all__ = ["is_bot"]

_ANYWHERE = (
    # link previews, monitors, crawlers
    "50.nu", "Aboundex", "AdsBot-Google", "altavista", "AppEngine-Google", "archiver", "Ask Jeeves", "bingbot", "BingPreview",
    "blitzbot", "BlogBridge", "Bloglovin", "BoardReader Blog Indexer", "BoardReader Favicon Fetcher", "BotName/$BotVersion",
    "BotSeer", "BUbiNG", "Catchpoint", "Charlotte", "charlotte", "Checklinks", "Cityreview Robot", "clumboot", "Daumoa",
    "Feed Seeker Bot", "Feedbin", "Finderbots", "findlinks", "Flamingo_SearchEngine", "FollowSite Bot", "furlbot", "Genieo",
    "gigabot", "GomezAgent", "gonzo1", "Googlebot", "Google SketchUp", "grub-client", "heritrix", "HiddenMarket", "holmes",
    "HooWWWer", "htdig", "ia_archiver", "Icarus6j", "ichiro", "IconSurf", "IlTrovatore", "InfuzApp", "InternetArchive",
    "Job Roboter", "KaloogaBot", "Kraken", "Kurzor", "larbin", "LEIA", "LesnikBot", "Linguee Bot", "LinkAider", "LinkedInBot",
    "Lite Bot", "Llaut", "lycos", "Mail.RU_Bot", "masscan", "masidani_bot", "Mediapartners-Google", "mogimogi", "mozDex",
    "MJ12bot", "msnbot", "msrbot", "Mtps Feed Aggregation System", "netresearch", "Netvibes", "NewsGator", "Nutch", "Nymesis",
    "ObjectsSearch", "OgScrper", "Orbiter", "OOZBOT", "PagePeeker", "PagesInventory", "PaxleFramework", "Peeplo Screenshot Bot",
    "PlantyNet_WebRobot", "Pompos", "Qwantify", "Read%20Later", "Reaper", "RedCarpet", "Retreiver", "Riddler", "Rival IQ",
    "scooter", "Scrapy", "Scrubby", "searchsight", "seekbot", "semanticdiscovery", "SemrushBot", "Simpy", "SimplePie", "SEOstats",
    "SimpleRSS", "SiteCat Webbot", "SiteCon", "Slackbot-LinkExpanding", "Slack-ImgProxy", "Slurp", "snappy", "Squrl Java",
    "Stringer", "TheUsefulbot", "ThumbShotsBot", "Thumbshots.ru", "Tiny Tiny RSS", "Twitterbot", "WhatsApp", "URL2PNG",
    "Vagabondo", "VoilaBot", "Votay bot", "Web-sniffer", "WebThumb", "WhatWeb", "WIRE", "WordPress", "Wotbox",
    "www.almaden.ibm.com", "YahooSeeker", "YodaoBot", "YottaaMonitor", "Yowedo", "ZeBot_www.ze.bz", "ZooShot", "ZyBorg", "yacy",
    # libraries that fetch
    "aihttp", "Apache-HttpClient", "axios", "Go-http-client", "Google-HTTP-Java-Client", "http%20client", "HttpMonitor", "JNLP",
    "okhttp", "Python-urllib", "reqwest", "scalaj-http", "TLSProber", "unirest-java", "unirest-net", "unirest-nodejs",
    "unirest-php", "unirest-python", "unirest-ruby", "WinHTTP",
)  # fmt: skip
"""Names that tell a bot wherever they stand."""

_WITH_VERSION = (
    "008", "Altresium", "Argus", "BaiduMobaider", "BoardReader", "DNSGroup", "DataparkSearch", "EDI", "Goodzer", "Grub", "INGRID",
    "Infohelfer", "LOOQ", "PathDefender", "Peew", "PostPost", "Steeler", "VSE", "WebCrunch", "WebZIP", "envolk", "sproose",
    "wminer",
)  # fmt: skip
"""Words that tell one where a slash and a number follow."""

_SHAPES = (
    r"(?i:spider|crawl)", r"[Ss]crape",
    r"(?:[Aa]rchiver|[Ii]ndexer|[Bb]ot)[/ ]\d",
    rf"\b(?:{'|'.join(_WITH_VERSION)}|Y!J-BR[A-Z])/\d",
    r"\b(?:Boto3?|JetS3t|s3fs|aws-(?:cli|sdk-(?:cpp|go|java|nodejs|ruby2?|dotnet-(?:\d\d?|core))))/\d+\.\d",
    r"/(?:[A-z]+[Bb]ot|Axtaris|fetchurl|Isara|ShopSalad|Tailsweep)[ -]\d",
    r"Pingdom\.com_bot_version_\d+\.\d", r"facebookexternalhit/\d+\.\d", r"Google.*/\+/web/snippet", r" PTST/\d+\.?\d+$",
    r"\b\w{0,30}favicon\w{0,30}\b", r"\bYeti", r"jbot\b", r"Yandex\w", r"^(?:NING|vortex|voyager|Zao)",
    r"boitho.com-dc", r"WASALive.Bot", r"WeSEE:[A-z]", r"Xenu(?:.s)? Link Sleuth", r"Xerka [A-z]{1,30}Bot",
    r"archive.{0,30}\.org_bot", r"Accoona-[A-z]{1,30}-Agent", r"IP2[a-z]{1,30}Bot", r"Microsoft .{0,30} Bot",
)  # fmt: skip
"""What tells one by more than a name."""

_BOT = re.compile("|".join((*_SHAPES, *map(re.escape, _ANYWHERE))).encode())


def is_bot(agent: bytes) -> bool:
    """Whether a User-Agent is a bot's."""
    return _BOT.search(agent) is not None
