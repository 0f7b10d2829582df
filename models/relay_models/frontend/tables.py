"""What written English abbreviates, and how it is said. Plain data; `frontend_reading` knows when to use it.

Values are spoken words in lower case, separated by blanks; a word in capitals is spelled letter by letter.
"""

from __future__ import annotations

from typing import Final


def word_set(words: str) -> frozenset[str]:
    """The words of a text, separated by blanks."""
    return frozenset(words.split())


MONTHS: Final = {
    "jan": "january", "feb": "february", "mar": "march", "apr": "april", "may": "may", "jun": "june", "jul": "july",
    "aug": "august", "sep": "september", "sept": "september", "oct": "october", "nov": "november", "dec": "december",
}  # fmt: skip
MONTH_NAMES: Final = tuple(dict.fromkeys(MONTHS.values()))

WEEKDAYS: Final = {
    "mon": "monday", "tue": "tuesday", "tues": "tuesday", "wed": "wednesday", "thu": "thursday", "thur": "thursday",
    "thurs": "thursday", "fri": "friday", "sat": "saturday", "sun": "sunday",
}  # fmt: skip

TITLES: Final = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "prof": "professor", "gen": "general", "sen": "senator",
    "rep": "representative", "gov": "governor", "capt": "captain", "lt": "lieutenant", "col": "colonel",
    "sgt": "sergeant", "rev": "reverend", "hon": "honorable", "pres": "president", "mt": "mount", "messrs": "messers",
    "cmdr": "commander", "maj": "major",
}  # fmt: skip
"""Before a name, always with a full stop that ends no sentence (`Mr` and `Mrs` without one, too)."""

ABBREVIATIONS: Final = {
    "vs": "versus", "v": "versus", "eg": "for example", "ie": "that is", "etc": "et cetera", "approx": "approximately",
    "inc": "incorporated", "ltd": "limited", "corp": "corporation", "co": "company", "dept": "department",
    "ave": "avenue", "blvd": "boulevard", "rd": "road", "jr": "junior", "sr": "senior", "fig": "figure",
    "figs": "figures", "vol": "volume", "pp": "pages", "ch": "chapter", "sec": "second", "min": "minimum", "hr": "hour",
    "hrs": "hours", "mins": "minutes", "secs": "seconds", "yr": "year", "yrs": "years", "wk": "week", "wks": "weeks",
    "est": "established", "max": "maximum", "misc": "miscellaneous", "bros": "brothers", "al": "al", "ca": "circa",
    "cf": "compare", "ed": "edition", "eq": "equation", "tel": "telephone", "apt": "apartment", "assoc": "association",
    "govt": "government", "intl": "international", "tbsp": "tablespoon", "tsp": "teaspoon", "oz": "ounce",
    "lb": "pound", "lbs": "pounds", "ft": "foot", "sq": "square", "temp": "temperature", "ref": "reference",
    "para": "paragraph", "avg": "average", "esp": "especially", "incl": "including", "excl": "excluding",
    "aka": "also known as", "nos": "numbers", "tbsps": "tablespoons", "tsps": "teaspoons",
}  # fmt: skip
"""Said in full when a full stop follows."""

NO_FULL_STOP: Final = {
    "vs": "versus", "etc": "et cetera", "approx": "approximately", "blvd": "boulevard", "w/": "with", "w/o": "without",
    "b/c": "because", "aka": "also known as", "a.k.a": "also known as", "e.g": "for example", "i.e": "that is",
    "tbsp": "tablespoon", "tsp": "teaspoon", "mr": "mister", "mrs": "missus", "dept": "department",
    "govt": "government", "hrs": "hours", "mins": "minutes", "secs": "seconds", "yrs": "years", "lbs": "pounds",
    "bros": "brothers", "24/7": "twenty four seven", "9/11": "nine eleven", "n/a": "NA", "c/o": "care of",
    "jr": "junior", "sr": "senior", "ph.d": "PHD", "wifi": "wifi", "wi-fi": "wifi", "and/or": "and or",
    "he/she": "he or she",
    "she/he": "she or he", "his/her": "his or her", "him/her": "him or her", "s/he": "she or he", "tcp/ip": "TCP IP",
    "i/o": "IO",
    "a/b": "AB", "r&d": "R and D", "q&a": "Q and A", "at&t": "AT and T", "p&l": "P and L", "c++": "C plus plus",
    "c#": "C sharp", "f#": "F sharp", ".net": "dot net", "asp.net": "ASP dot net", "o'clock": "o'clock", "rock'n'roll":
    "rock and roll", "latex": "latex", "y'all": "y'all", "x-ray": "x-ray", "mp3": "MP three", "mp4": "MP four",
    "utf-8": "UTF eight", "ios": "ios", "w3c": "W three C", "k8s": "kubernetes", "i18n": "internationalization",
    "l10n": "localization", "a11y": "accessibility", "4x4": "four by four", "911": "nine one one", "o2": "O two",
    "co2": "CO two", "h2o": "H two O", "7-eleven": "seven eleven", "e-mail": "email", "e-mails": "emails",
    "ipv4": "IPV four", "ipv6": "IPV six", "bsc": "BSC",
    "msc": "MSC", "wwi": "world war one", "wwii": "world war two",
}  # fmt: skip
"""Said so wherever the written word, in lower case, is exactly this."""

ENDS_OR_NOT: Final = frozenset(
    {"etc", "inc", "ltd", "corp", "co", "jr", "sr", "ave", "blvd", "rd", "al", "est", "bros"}
)
"""Abbreviations that often stand at the end of a sentence: a capital after them says that one ended."""

KINGS: Final = word_set(
    """henry louis charles george elizabeth edward william richard james philip john paul benedict pius alexander
    francis frederick napoleon catherine mary peter nicholas leo gregory innocent urban clement ferdinand alfonso
    carl gustav christian ramesses ptolemy darius xerxes otto ivan leopold wilhelm albert margaret harald haakon
    clovis robert malcolm david thutmose amenhotep cleopatra queen king pope"""
)
"""Names after which a Roman numeral is an ordinal."""

NUMBERED: Final = word_set(
    """war chapter part act scene volume phase type title section article book level stage class grade figure table
    appendix bowl episode season step unit vatican fantasy rocky mark version category tier schedule division
    amendment wars olympiad"""
)
"""Nouns after which a Roman numeral, even a single letter, is a cardinal."""

LETTERED: Final = word_set("vitamin plan grade group hepatitis option type class section point figure letter team")
"""Nouns after which a single capital letter is that letter, not an article or pronoun."""

VERSIONED: Final = word_set(
    """version release python node java kotlin php ruby go rust swift ubuntu debian fedora android ios macos
    windows cuda kernel linux chrome firefox postgresql mysql django react angular xcode typescript unity
    blender section chapter figure table"""
)
"""Names after which `3.12` is three point twelve."""

STATES: Final = {
    "AL": "alabama", "AK": "alaska", "AZ": "arizona", "AR": "arkansas", "CA": "california", "CO": "colorado",
    "CT": "connecticut", "DE": "delaware", "FL": "florida", "GA": "georgia", "HI": "hawaii", "ID": "idaho",
    "IL": "illinois", "IN": "indiana", "IA": "iowa", "KS": "kansas", "KY": "kentucky", "LA": "louisiana", "ME": "maine",
    "MD": "maryland", "MA": "massachusetts", "MI": "michigan", "MN": "minnesota", "MS": "mississippi", "MO": "missouri",
    "MT": "montana", "NE": "nebraska", "NV": "nevada", "NH": "new hampshire", "NJ": "new jersey", "NM": "new mexico",
    "NY": "new york", "NC": "north carolina", "ND": "north dakota", "OH": "ohio", "OK": "oklahoma", "OR": "oregon",
    "PA": "pennsylvania", "RI": "rhode island", "SC": "south carolina", "SD": "south dakota", "TN": "tennessee",
    "TX": "texas", "UT": "utah", "VT": "vermont", "VA": "virginia", "WA": "washington", "WV": "west virginia",
    "WI": "wisconsin", "WY": "wyoming", "DC": "DC",
}  # fmt: skip
"""Read so after a name and a comma: `Chicago, IL`."""

SCALES: Final = {
    "hundred": "hundred", "thousand": "thousand", "million": "million", "billion": "billion", "trillion": "trillion",
    "k": "thousand", "m": "million", "mn": "million", "mm": "million", "b": "billion", "bn": "billion",
    "t": "trillion", "tn": "trillion",
}  # fmt: skip

CURRENCIES: Final = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "us$": ("US dollar", "US dollars", "cent", "cents"),
    "a$": ("australian dollar", "australian dollars", "cent", "cents"),
    "c$": ("canadian dollar", "canadian dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
    "₿": ("bitcoin", "bitcoins", "", ""),
    "¢": ("cent", "cents", "", ""),
}
CURRENCY_CODES: Final = {
    "usd": ("US dollar", "US dollars"), "eur": ("euro", "euros"), "gbp": ("british pound", "british pounds"),
    "jpy": ("yen", "yen"), "chf": ("swiss franc", "swiss francs"), "cad": ("canadian dollar", "canadian dollars"),
    "aud": ("australian dollar", "australian dollars"), "cny": ("yuan", "yuan"), "inr": ("rupee", "rupees"),
    "btc": ("bitcoin", "bitcoins"), "sek": ("swedish krona", "swedish kronor"),
}  # fmt: skip

# Singular and plural. Case matters: `MB` megabytes, `Mb` megabits, `M` mega-, `m` metres.
UNITS: Final = {
    "mm": "millimeter", "cm": "centimeter", "m": "meter", "km": "kilometer", "nm": "nanometer", "μm": "micrometer",
    "ft": "foot", "in": "inch", "yd": "yard", "mi": "mile", "mg": "milligram", "g": "gram", "kg": "kilogram",
    "μg": "microgram", "lb": "pound", "lbs": "pound", "oz": "ounce", "ml": "milliliter", "mL": "milliliter",
    "l": "liter", "L": "liter", "cl": "centiliter", "dl": "deciliter", "gal": "gallon", "pt": "pint", "qt": "quart",
    "tbsp": "tablespoon", "tsp": "teaspoon", "s": "second", "sec": "second", "secs": "second", "ms": "millisecond",
    "μs": "microsecond", "ns": "nanosecond", "min": "minute", "mins": "minute", "h": "hour", "hr": "hour",
    "hrs": "hour", "yr": "year", "yrs": "year", "mo": "month", "wk": "week", "wks": "week", "Hz": "hertz",
    "kHz": "kilohertz", "KHz": "kilohertz", "khz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz",
    "THz": "terahertz", "B": "byte", "kB": "kilobyte", "KB": "kilobyte", "kb": "kilobit", "MB": "megabyte",
    "Mb": "megabit", "mb": "megabyte", "GB": "gigabyte", "Gb": "gigabit", "gb": "gigabyte", "TB": "terabyte",
    "tb": "terabyte", "PB": "petabyte", "KiB": "kibibyte", "MiB": "mebibyte", "GiB": "gibibyte", "TiB": "tebibyte",
    "kbps": "kilobit per second", "kbit": "kilobit", "Mbit": "megabit", "Gbit": "gigabit",
    "Mbps": "megabit per second", "mbps": "megabit per second", "Gbps": "gigabit per second", "bps": "bit per second",
    "fps": "frame per second", "FPS": "frame per second", "rpm": "revolution per minute",
    "RPM": "revolution per minute", "mph": "mile per hour", "kph": "kilometer per hour", "kmh": "kilometer per hour",
    "mpg": "mile per gallon", "V": "volt", "mV": "millivolt", "kV": "kilovolt", "W": "watt", "mW": "milliwatt",
    "kW": "kilowatt", "MW": "megawatt", "GW": "gigawatt", "TW": "terawatt", "Wh": "watt hour", "kWh": "kilowatt hour",
    "MWh": "megawatt hour", "mAh": "milliamp hour", "A": "amp", "mA": "milliamp", "Ω": "ohm", "kΩ": "kilohm",
    "J": "joule", "kJ": "kilojoule", "cal": "calorie", "kcal": "kilocalorie", "N": "newton", "Pa": "pascal",
    "kPa": "kilopascal", "hPa": "hectopascal", "psi": "PSI", "dB": "decibel", "dBm": "DBM", "K": "kelvin",
    "°": "degree", "°C": "degree celsius", "°F": "degree fahrenheit", "ºC": "degree celsius",
    "ºF": "degree fahrenheit", "ha": "hectare", "mol": "mole", "lm": "lumen", "px": "pixel", "pt.": "point",
    "rad": "radian", "deg": "degree", "ppm": "part per million", "sqft": "square foot", "%": "percent",
    "‰": "per mille", "pp": "percentage point", "bps.": "basis point", "x": "time", "X": "time",
    "TFLOPS": "teraflops", "GFLOPS": "gigaflops", "Mpx": "megapixel", "MP": "megapixel",
}  # fmt: skip
ALONE_UNITS: Final = word_set(
    """kHz KHz khz MHz GHz THz Hz kB KB MB GB TB PB KiB MiB GiB kbps Mbps mbps Gbps kWh MWh mAh km kg cm mm ml mL mg dB
    °C °F kW MW GW kJ kcal ms fps mph rpm nm μm μs ns Wh kPa hPa kV mV mA kΩ px"""
)
"""Units that are said in full even without a number before them."""

IRREGULAR_PLURALS: Final = {
    "foot": "feet", "inch": "inches", "hertz": "hertz", "kilohertz": "kilohertz", "megahertz": "megahertz",
    "gigahertz": "gigahertz", "terahertz": "terahertz", "percent": "percent", "per": "per", "kelvin": "kelvin",
    "teraflops": "teraflops", "gigaflops": "gigaflops", "PSI": "PSI", "DBM": "DBM",
}  # fmt: skip

SYMBOLS: Final = {
    "&": "and", "+": "plus", "=": "equals", "@": "at", "%": "percent", "×": "times", "÷": "divided by", "±":
    "plus or minus", "≈": "approximately", "≠": "is not equal to", "≤": "is at most", "≥": "is at least", "<":
    "is less than", ">": "is greater than", "°": "degrees", "→": "to", "⇒": "implies", "∞": "infinity", "√":
    "square root of", "π": "pi", "∑": "sum", "∫": "integral", "∂": "partial", "$": "dollar", "€": "euro", "£": "pound",
    "¥": "yen", "₹": "rupee", "§": "section", "©": "copyright", "==": "equals", "!=": "is not equal to", "<=":
    "is at most", ">=": "is at least", "->": "to", "=>": "to", "++": "plus plus", "&&": "and", "||": "or", "°C":
    "degrees celsius", "°F": "degrees fahrenheit", "½": "one half", "²": "squared", "³": "cubed", "−": "minus",
    "∈": "in", "∪": "union", "∩": "intersection", "≡": "is equivalent to", "~": "", "^": "", "#": "",
}  # fmt: skip
"""A written word that is nothing but this."""

VULGAR_FRACTIONS: Final = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
    "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8), "⅐": (1, 7),
    "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip

SPELLED: Final = word_set(
    """AI AR VR UI UX ID IT US UK EU UN UAE USA OS IO IP AC DC AM PM TV PC CD DVD CPU GPU TPU NPU API CLI SDK IDE IOT
    OCR ASR TTS STT NLP NLU LLM LLMS ML DL RL RNN CNN LSTM GRU VAE URL URI URN HTML CSS SQL CSV XML PDF USB HDMI ATM
    CEO CFO COO CTO CIO CMO HR PR QA IQ EQ VIP FAQ DIY ETA FYI ASAP BBC CIA FBI NBA NFL NHL MLB UFO UFC DNA RNA MRI
    CT EKG ECG ICU ER IV HIV ADHD OCD SAT ACT GRE MBA BA MA BS MS MD RSS SEO SSH SSL TLS TCP UDP DNS DHCP FTP HTTP
    HTTPS AWS GCP VPN VM VMS SSD HDD RGB LED LCD OLED GPS SMS RPG FPS AKA ISO IEEE W3C OK UAV EV AOL IBM ABC NBC CBS
    MIT UCLA NYU UBS BMW EPA IRS FDA CDC NIH IMF WTO PHD GPT BERT EOF IE EG ORM MVP SLA KPI ROI B2B B2C CRM ERP POS
    HTTPD SVG PNG BMP MVC OOP JVM JDK GNU GCC ABI ELF EOD ETF IPO GDP CPI EST EDT PST PDT CST CDT MST UTC GMT CET AD
    BC CE BCE USD EUR GBP AE IPA ARPA ALU FPGA ASIC SOC ARM RISC ISA PCB IC OEM NDA LLC RSVP RIP SOS TBA TBD AFK BRB
    OMG LOL IMO IMHO AP AFC ISP ADB IAM EC2 S3 SSO OTP PSA AAA UPS USPS"""
)  # fmt: skip
"""Capitals that would look like a word but are spelled."""

SPOKEN: Final = word_set(
    """NASA NATO RAM ROM JPEG GIF PIN SIM LAN WAN LASER RADAR SONAR AIDS COVID UNESCO UNICEF OPEC FIFA UEFA SWAT SCUBA
    CAPTCHA YAML JSON REST SOAP CRUD ASCII BIOS CUDA BASIC COBOL FORTRAN LISP NASDAQ NAFTA POTUS SCOTUS FLOTUS MIDI
    NUMA SAAS PAAS IAAS FEMA ICANN IKEA LEGO YOLO FOMO BERT BLEU ROUGE LORA TOML BASH GREP SUDO VIM NAND NOR XOR DOS
    WIMP WYSIWYG ACID NAS RAID SATA SAN GAN MOSFET CMOS CAT MEMS ANOVA PETA RICO HIPAA OSHA ERISA COBRA SARS MERS
    ZIP WAV RISC ARPANET TOEFL NOAA EBITDA MOMA SIDS AWOL PATCH POST GET PUT HEAD DELETE NULL TRUE FALSE AND OR NOT"""
)  # fmt: skip
"""Capitals that are spoken as a word (which may be one of the lexicon's own entries)."""

GREEK: Final = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "ο": "omicron", "π": "pi", "ρ": "rho",
    "σ": "sigma", "ς": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
}  # fmt: skip

FILE_ENDINGS: Final = word_set(
    """txt py js ts jsx tsx md json yaml yml toml csv tsv html css xml pdf doc docx xls xlsx ppt pptx png jpg jpeg gif
    svg mp3 mp4 wav flac ogg zip tar gz exe dll sh bat ini cfg conf log sql db rs go c h cpp hpp java kt rb php
    swift lua r ipynb lock env git bin so onnx safetensors pt"""
)
TOP_LEVEL_DOMAINS: Final = word_set(
    """com org net edu gov mil int io ai co uk de fr es it nl eu us ca au jp cn in br ru ch at se no dk fi pl info biz
    app dev me tv xyz tech online site store blog cloud"""
)
SAID_ENDINGS: Final = {
    "com": "com", "org": "org", "net": "net", "edu": "EDU", "gov": "guv", "info": "info", "biz": "biz", "app": "app",
    "dev": "dev", "tech": "tech", "online": "online", "site": "site", "store": "store", "blog": "blog",
    "cloud": "cloud", "io": "IO", "ai": "AI", "co": "co", "me": "me", "py": "pie", "json": "json", "yaml": "yaml",
    "toml": "toml", "zip": "zip", "tar": "tar", "wav": "wave", "jpeg": "jpeg", "gif": "gif", "log": "log", "bat": "bat",
    "bin": "bin", "java": "java", "go": "go", "swift": "swift", "lua": "lua", "lock": "lock", "git": "git",
    "env": "env",
    "docx": "dock X", "doc": "dock", "conf": "conf", "onnx": "onnx", "safetensors": "safetensors", "mil": "mil",
    "int": "int", "txt": "TXT", "ini": "INI", "exe": "EXE",
}  # fmt: skip
"""File endings and top-level domains that are said as words; others are spelled."""
