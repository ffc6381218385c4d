"""What the shop sells, where, and by which campaigns people come. All of it is made up."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple


class Product(NamedTuple):
    sku: str
    english: str
    chinese: str
    category: str
    usd: Decimal
    weight: int  # how often it is looked at, next to the others

    def name(self, language: str) -> str:
        return self.chinese if language == "zh" else self.english


def _product(sku: str, english: str, chinese: str, category: str, usd: str, weight: int) -> Product:
    return Product(sku, english, chinese, category, Decimal(usd), weight)


PRODUCTS = (
    _product("kettle", "Pour-over kettle", "手冲壶", "Coffee", "49.00", 9),
    _product("filters", "Filter papers", "滤纸", "Coffee", "6.50", 4),
    _product("beans", "House blend beans", "招牌咖啡豆", "Coffee", "14.90", 12),
    _product("grinder", "Hand grinder", "手摇磨豆机", "Coffee", "79.00", 6),
    _product("scale", "Coffee scale", "咖啡电子秤", "Coffee", "34.00", 4),
    _product("longjing", "Longjing green tea", "龙井绿茶", "Tea", "22.00", 9),
    _product("oolong", "Roasted oolong", "炭焙乌龙", "Tea", "26.00", 7),
    _product("gaiwan", "Porcelain gaiwan", "白瓷盖碗", "Tea", "31.50", 5),
    _product("teapot", "Clay teapot", "紫砂壶", "Tea", "88.00", 4),
    _product("tray", "Bamboo tea tray", "竹茶盘", "Tea", "42.00", 3),
    _product("pan", "Cast-iron pan", "铸铁煎锅", "Kitchen", "39.00", 8),
    _product("knife", "Chef's knife", "主厨刀", "Kitchen", "64.00", 7),
    _product("stone", "Whetstone", "磨刀石", "Kitchen", "24.00", 3),
    _product("board", "Walnut cutting board", "胡桃木砧板", "Kitchen", "45.00", 6),
    _product("apron", "Linen apron", "亚麻围裙", "Kitchen", "28.00", 5),
    _product("steamer", "Bamboo steamer", "竹蒸笼", "Kitchen", "19.50", 5),
    _product("candle", "Cedar candle", "雪松香薰蜡烛", "Home", "18.00", 6),
    _product("blanket", "Wool blanket", "羊毛毯", "Home", "95.00", 4),
    _product("vase", "Stoneware vase", "粗陶花瓶", "Home", "36.00", 4),
    _product("lamp", "Paper lamp", "纸灯", "Home", "58.00", 4),
    _product("notebook", "Dotted notebook", "点阵笔记本", "Desk", "12.00", 7),
    _product("pen", "Brass pen", "黄铜笔", "Desk", "29.00", 5),
    _product("ink", "Bottle of ink", "墨水", "Desk", "11.00", 3),
    _product("mug", "Enamel mug", "搪瓷杯", "Home", "13.50", 8),
)
BY_SKU = {product.sku: product for product in PRODUCTS}


class Market(NamedTuple):
    """Where people live.

    Attributes:
        rate: units of the currency for one US dollar, for this shop's prices.
        network: of the addresses for documentation (RFC 5737), so no ip is anybody's.
    """

    country: str
    locale: str
    language: str
    timezone: str
    currency: str
    rate: Decimal
    cities: tuple[str, ...]
    network: str
    weight: int


MARKETS = (
    Market("US", "en-US", "en", "America/New_York", "USD", Decimal("1"), ("New York", "Boston"), "192.0.2", 25),
    Market("US", "en-US", "en", "America/Los_Angeles", "USD", Decimal("1"), ("Seattle", "Oakland"), "192.0.2", 15),
    Market("GB", "en-GB", "en", "Europe/London", "GBP", Decimal("0.8"), ("London", "Leeds"), "198.51.100", 20),
    Market("CN", "zh-CN", "zh", "Asia/Shanghai", "CNY", Decimal("7"), ("上海", "杭州", "成都"), "203.0.113", 30),
    Market("TW", "zh-TW", "zh", "Asia/Taipei", "TWD", Decimal("30"), ("臺北", "臺中"), "203.0.113", 10),
)


class Campaign(NamedTuple):
    """How visitors come. `conversion` multiplies the likelihood of an order in its visits: a planted truth."""

    name: str
    source: str
    medium: str
    referrer: str
    weight: int
    conversion: float


CAMPAIGNS = (
    Campaign("", "", "", "", 30, 1.0),
    Campaign("", "", "", "https://www.google.com/", 20, 1.0),
    Campaign("spring_letter", "partner", "email", "https://mail.example/", 10, 2.5),
    Campaign("big_banner", "news-site", "display", "https://news.example/", 25, 0.2),
    Campaign("tea_video", "video-site", "social", "https://video.example/", 15, 1.0),
)
NEWSLETTER = Campaign("newsletter", "tidewire", "email", "", 0, 1.3)
CART_MAIL = Campaign("cart_reminder", "tidewire", "email", "", 0, 1.6)

GIVEN_EN = (
    "Ada", "Ben", "Clara", "Daniel", "Elif", "Farah", "George", "Hana", "Isaac", "June", "Kofi", "Lena",
    "Marco", "Nora", "Oscar", "Priya", "Quinn", "Ruth", "Sam", "Tess", "Umar", "Vera", "Will", "Yara",
    "Zoë",
)  # fmt: skip
FAMILY_EN = (
    "Abbott", "Baker", "Castillo", "Dunn", "Ellis", "Fischer", "Garcia", "Hughes", "Ivers", "Jones",
    "Khan", "Lopez", "Murphy", "Nguyen", "O'Brien", "Patel", "Quigley", "Rossi", "Smith", "Turner",
)  # fmt: skip
GIVEN_ZH = (
    "伟", "芳", "娜", "敏", "静", "磊", "洋", "艳", "杰", "涛", "明", "霞",
    "秀英", "子轩", "雨桐", "浩然", "欣怡", "思远",
)  # fmt: skip
FAMILY_ZH = (
    "王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "徐", "孙",
    "欧阳",
)  # fmt: skip

INDUSTRIES = ("Hospitality", "Design", "Software", "Education", "Retail")


class Agent(NamedTuple):
    """A kind of device."""

    kind: str
    os: str
    is_app: bool
    user_agent: str
    weight: int


_WEBKIT = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5"
_CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0"

AGENTS = (
    Agent("desktop", "Windows", False, f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_CHROME} Safari/537.36", 30),
    Agent("desktop", "macOS", False, f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_WEBKIT} Safari/605.1.15", 20),
    Agent("mobile", "iOS", False,
          f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {_WEBKIT} Mobile/15E148 Safari/604.1", 25),
    Agent("mobile", "Android", False, f"Mozilla/5.0 (Linux; Android 15; Pixel 9) {_CHROME} Mobile Safari/537.36", 20),
    Agent("mobile", "iOS", True, "Shop/3.2 (iPhone; iOS 18.5)", 10),
    Agent("mobile", "Android", True, "Shop/3.2 (Android 15; Pixel 9)", 10),
)  # fmt: skip
