"""Questions of a help desk, each in two wordings. No two of them ask the same, however alike they sound."""

PLUGIN = "How do I install a plugin in the editor?"
LOCK = "How do I lock the account of an employee who has left?"
HELP_DESK = {
    PLUGIN: "What do I have to do to add a plugin to the editor?",
    LOCK: "Somebody has left the company: how is that person's account locked?",
    "How do I unlock my account after too many attempts?": (
        "My account is locked because I tried too often. How do I get back in?"
    ),
    "How do I connect to the office network from home?": (
        "I work from home today. How do I get into the office network?"
    ),
    "Where do I order a second monitor?": "I need another monitor for my desk. Where can I order one?",
    "How do I share my calendar with a colleague?": "What do I do so that a colleague can see my calendar?",
    "How do I put the laptop into a meeting room's projector?": (
        "How is a laptop connected to the projector in a meeting room?"
    ),
    "Why is my mailbox full?": "What is the reason that my mailbox has no space left?",
    "How do I set an out-of-office reply?": "I am away next week. How do I set up an automatic reply to my mail?",
    "How do I recover a file that I deleted?": "I deleted a file by mistake. Can I get it back, and how?",
    "Which printer is on the third floor?": "What is the name of the printer on floor three?",
    "How do I change the language of the keyboard?": "My keyboard types in the wrong language. Where do I change that?",
    "How do I report a suspicious e-mail?": "I got an e-mail that looks like phishing. How do I report it?",
    "How do I get access to the payroll folder?": "What do I need to do to get into the folder of the payroll team?",
    "Who approves the purchase of new software?": "If I want to buy software, who has to approve it?",
    "How do I set up the second factor on a new phone?": (
        "I have a new phone. How do I move the two-factor login to it?"
    ),
    "How long are backups of the shared drive kept?": "For how many days do we keep the backups of the shared drive?",
    "How do I encrypt a USB stick?": "What do I do to encrypt the data on a USB stick?",
    "Where do I return a broken headset?": "My headset is broken. Where do I bring it back?",
    "How do I record a video call?": "Can I record a call with video, and how do I do it?",
    "When are the servers restarted for updates?": "At what time do the servers restart to install updates?",
    "How do I join the guest wireless network?": "How does a visitor get onto the wireless network for guests?",
    "How do I book a desk on another floor?": "I want to sit on another floor tomorrow. How do I reserve a desk there?",
    "How do I change my display name in the chat?": "My name in the chat is wrong. How can I change it?",
    "How do I cancel a meeting?": "What is the way to call off a meeting?",
    "How do I print on both sides?": "How can I make the printer use both sides of the paper?",
    "How do I change my password?": "I want a different password. How do I set it?",
    "What is the help desk's phone number?": "At which number can I call the help desk?",
    "How do I ask for a new laptop?": "I need a new laptop. Where do I ask for it?",
    "Why is the video call so slow?": "What makes the video call so slow?",
    "How do I restore an older version of a document?": "Can I get back an earlier version of a document, and how?",
    "How do I connect a headset by Bluetooth?": "What do I do to pair a Bluetooth headset?",
    "Which browser am I supposed to use?": "What browser does the company want me to use?",
    "How much space does each mailbox have?": "What is the size limit of a mailbox?",
    "How do I sign a document electronically?": "How can I put an electronic signature on a document?",
    "Where do I see which licences I have?": "Where can I find a list of my licences?",
    "How do I stop the pop-up windows?": "Windows keep popping up. How can I get rid of them?",
    "How do I send a large file to a customer?": "What is the way to get a big file to a customer?",
    "How do I update the operating system?": "What do I do to install an update of the operating system?",
    "Who may read the log of the server?": "Which people are allowed to read the server's log?",
}
"""question -> the same in other words"""
