"""Pronunciations that come before the dictionary's: technical words, names of today, and what it gives otherwise."""

from __future__ import annotations

from typing import Final

_WRITTEN = """
aaa T R IH2 P AH0 L EY1
ai EY2 AY1
alexa AH0 L EH1 K S AH0
algorithmic AE2 L G ER0 IH1 DH M IH0 K
api EY2 P IY2 AY1
ascii AE1 S K IY0
async EY1 S IH2 NG K
asyncio EY2 S IH2 NG K AY2 OW1
arxiv AA1 R K AY2 V
auth AO1 TH
aws EY2 D AH2 B AH0 L Y UW2 EH1 S
backpropagation B AE2 K P R AA2 P AH0 G EY1 SH AH0 N
bert B ER1 T
biden B AY1 D AH0 N
bios B AY1 OW0 S
bitcoin B IH1 T K OY2 N
blockchain B L AA1 K CH EY2 N
bool B UW1 L
boolean B UW1 L IY0 AH0 N
brexit B R EH1 K S IH0 T
cafe K AE0 F EY1
captcha K AE1 P CH AH0
celsius S EH1 L S IY0 AH0 S
centimeter S EH1 N T AH0 M IY2 T ER0
chatbot CH AE1 T B AA2 T
chatgpt CH AE2 T JH IY2 P IY2 T IY1
cliche K L IY0 SH EY1
cmos S IY1 M AO2 S
codec K OW1 D EH2 K
config K AH0 N F IH1 G
coronavirus K AH0 R OW1 N AH0 V AY2 R AH0 S
covid K OW1 V IH0 D
cron K R AA1 N
crypto K R IH1 P T OW0
cuda K UW1 D AH0
customizable K AH1 S T AH0 M AY2 Z AH0 B AH0 L
dataset D EY1 T AH0 S EH2 T
debian D EH1 B IY0 AH0 N
decibel D EH1 S AH0 B EH2 L
deepmind D IY1 P M AY2 N D
deepseek D IY1 P S IY2 K
denominator D IH0 N AA1 M AH0 N EY2 T ER0
dev D EH1 V
devops D EH1 V AA2 P S
django JH AE1 NG G OW0
doc D AA1 K
docs D AA1 K S
docker D AA1 K ER0
didnt D IH1 D AH0 N T
doesnt D AH1 Z AH0 N T
dont D OW1 N T
ebay IY1 B EY2
email IY1 M EY2 L
emails IY1 M EY2 L Z
emoji IH0 M OW1 JH IY0
enum IY1 N AH2 M
eval IH0 V AE1 L
facade F AH0 S AA1 D
fastapi F AE2 S T EY2 P IY2 AY1
favicon F AE1 V IH0 K AA2 N
fiance F IY2 AA0 N S EY1
figma F IH1 G M AH0
fortran F AO1 R T R AE2 N
frontend F R AH1 N T EH2 N D
gif G IH1 F
gigabit G IH1 G AH0 B IH2 T
gigabits G IH1 G AH0 B IH2 T S
gigabyte G IH1 G AH0 B AY2 T
gigabytes G IH1 G AH0 B AY2 T S
gigahertz G IH1 G AH0 HH ER2 T S
git G IH1 T
github G IH1 T HH AH2 B
gitlab G IH1 T L AE2 B
gmail JH IY1 M EY2 L
golang G OW1 L AE2 NG
graphql G R AE2 F K Y UW2 EH1 L
grok G R AA1 K
gui G UW1 IY0
guv G AH1 V
haha HH AA1 HH AA1
hashtag HH AE1 SH T AE2 G
hertz HH ER1 T S
hiphop HH IH1 P HH AA2 P
huggingface HH AH1 G IH0 NG F EY2 S
ide AY1 D
idempotent AY2 D AH0 M P OW1 T AH0 N T
init IH0 N IH1 T
instagram IH1 N S T AH0 G R AE2 M
int IH1 N T
internationalization IH2 N T ER0 N AE2 SH AH0 N AH0 L AH0 Z EY1 SH AH0 N
ios AY2 OW2 EH1 S
ipad AY1 P AE2 D
iphone AY1 F OW2 N
javascript JH AA1 V AH0 S K R IH2 P T
isnt IH1 Z AH0 N T
jira JH IH1 R AH0
jpeg JH EY1 P EH2 G
json JH EY1 S AH0 N
jupyter JH UW1 P IH0 T ER0
kafka K AA1 F K AH0
kibibyte K IH1 B IY0 B AY2 T
kilobit K IH1 L AH0 B IH2 T
kilobits K IH1 L AH0 B IH2 T S
kilobyte K IH1 L AH0 B AY2 T
kilobytes K IH1 L AH0 B AY2 T S
kilohertz K IH1 L AH0 HH ER2 T S
kilometer K AH0 L AA1 M AH0 T ER0
kilometers K AH0 L AA1 M AH0 T ER0 Z
kotlin K AA1 T L IH0 N
kpop K EY1 P AA2 P
kubernetes K UW2 B ER0 N EH1 T IY0 Z
lambda L AE1 M D AH0
latex L EY1 T EH2 K S
linkedin L IH2 NG K T IH1 N
linux L IH1 N AH0 K S
llama L AA1 M AH0
localhost L OW1 K AH0 L HH OW2 S T
localization L OW2 K AH0 L AH0 Z EY1 SH AH0 N
login L AO1 G IH2 N
macos M AE1 K OW2 EH2 S
malware M AE1 L W EH2 R
matplotlib M AE1 T P L AA2 T L IH2 B
megabit M EH1 G AH0 B IH2 T
megabits M EH1 G AH0 B IH2 T S
megahertz M EH1 G AH0 HH ER2 T S
megapixel M EH1 G AH0 P IH2 K S AH0 L
meme M IY1 M
memes M IY1 M Z
messers M EH1 S ER0 Z
metadata M EH1 T AH0 D EY2 T AH0
miz M IH1 Z
microservices M AY1 K R OW0 S ER2 V IH0 S IH0 Z
midi M IH1 D IY0
milliamp M IH1 L IY0 AE2 M P
mistral M IH1 S T R AH0 L
mongodb M AA2 NG G OW0 D IY2 B IY1
moma M OW1 M AH0
multimodal M AH2 L T IY0 M OW1 D AH0 L
mutex M Y UW1 T EH2 K S
mysql M AY2 S IY1 K W AH0 L
naive N AA0 IY1 V
nato N EY1 T OW0
nasdaq N AE1 Z D AE2 K
nginx EH2 N JH IH0 N EH1 K S
numpy N AH1 M P AY2
nvidia EH0 N V IH1 D IY0 AH0
oauth OW1 AO2 TH
obama OW0 B AA1 M AH0
ollama OW0 L AA1 M AH0
onnx AA1 N IH0 K S
openai OW2 P AH0 N EY2 AY1
opencv OW2 P AH0 N S IY2 V IY1
ok OW2 K EY1
pandas P AE1 N D AH0 Z
param P EH1 R AH0 M
params P EH1 R AH0 M Z
pfft F T
phishing F IH1 SH IH0 NG
phoneme F OW1 N IY2 M
phonemes F OW1 N IY2 M Z
plugin P L AH1 G IH2 N
podcast P AA1 D K AE2 S T
podcasts P AA1 D K AE2 S T S
postgres P OW1 S T G R EH2 S
postgresql P OW2 S T G R EH2 S K Y UW2 EH1 L
pydantic P AY0 D AE1 N T IH0 K
pypi P AY1 P IY2 AY2
pytest P AY1 T EH2 S T
python P AY1 TH AA2 N
pytorch P AY1 T AO2 R CH
quora K W AO1 R AH0
qwen K W EH1 N
readme R IY1 D M IY2
redis R EH1 D IH0 S
regex R EH1 JH EH2 K S
repo R IY1 P OW2
repos R IY1 P OW2 Z
résumé R EH1 Z AH0 M EY2
résumés R EH1 Z AH0 M EY2 Z
rust R AH1 S T
saas S AE1 S
scipy S AY1 P AY2
selfie S EH1 L F IY0
siri S IH1 R IY0
smartphone S M AA1 R T F OW2 N
spacex S P EY2 S EH1 K S
spotify S P AA1 T AH0 F AY2
sqlite S IY1 K W AH0 L AY2 T
startup S T AA1 R T AH2 P
startups S T AA1 R T AH2 P S
src S AO1 R S
stderr S T AE1 N D ER0 D EH1 R ER0
stdin S T AE1 N D ER0 D IH1 N
stdout S T AE1 N D ER0 D AW1 T
sudo S UW1 D UW0
sync S IH1 NG K
tensorflow T EH1 N S ER0 F L OW2
terabyte T EH1 R AH0 B AY2 T
terabytes T EH1 R AH0 B AY2 T S
tesla T EH1 S L AH0
thats DH AE1 T S
tiktok T IH1 K T AA2 K
timestamp T AY1 M S T AE2 M P
timestamps T AY1 M S T AE2 M P S
tokenizer T OW1 K AH0 N AY2 Z ER0
tokenizers T OW1 K AH0 N AY2 Z ER0 Z
toml T AA1 M AH0 L
trump T R AH1 M P
tsk T IH1 S K
tuple T UH1 P AH0 L
typescript T AY1 P S K R IH2 P T
uber UW1 B ER0
ubuntu UH0 B UH1 N T UW0
uefa Y UW0 EY1 F AH0
unicode Y UW1 N AH0 K OW2 D
usr Y UW1 Z ER0
utf Y UW2 T IY2 EH1 F
vegan V IY1 G AH0 N
versa V ER1 S AH0
voila V W AA0 L AA1
vscode V IY2 EH2 S K OW1 D
webhook W EH1 B HH UH2 K
webhooks W EH1 B HH UH2 K S
webrtc W EH2 B AA2 R T IY2 S IY1
websocket W EH1 B S AA2 K AH0 T
websockets W EH1 B S AA2 K AH0 T S
whatsapp W AH1 T S AE2 P
whisper W IH1 S P ER0
wifi W AY1 F AY2
wikipedia W IH2 K AH0 P IY1 D IY0 AH0
wysiwyg W IH1 Z IY0 W IH2 G
xor EH1 K S AO2 R
yaml Y AE1 M AH0 L
youtube Y UW1 T UW2 B
youtuber Y UW1 T UW2 B ER0
zelensky Z AH0 L EH1 N S K IY0
"""

EXCEPTIONS: Final[dict[str, tuple[str, ...]]] = {
    word: tuple(phonemes) for word, *phonemes in (line.split() for line in _WRITTEN.strip().splitlines())
}

LETTER_NAMES: Final[dict[str, tuple[str, ...]]] = {
    name[0]: tuple(name[1:].split())
    for name in (
        "A EY1", "B B IY1", "C S IY1", "D D IY1", "E IY1", "F EH1 F", "G JH IY1", "H EY1 CH", "I AY1", "J JH EY1",
        "K K EY1", "L EH1 L", "M EH1 M", "N EH1 N", "O OW1", "P P IY1", "Q K Y UW1", "R AA1 R", "S EH1 S", "T T IY1",
        "U Y UW1", "V V IY1", "W D AH1 B AH0 L Y UW0", "X EH1 K S", "Y W AY1", "Z Z IY1",
    )
}  # fmt: skip
