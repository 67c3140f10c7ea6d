import random
import smtplib

for number in range(random.randint(5, 15)):
    with smtplib.SMTP("mail", 25) as smtp:
        smtp.sendmail("a@mail", ["b@mail"], f"Subject: {number}\n\n" + "x" * random.randint(10, 5000))
