"""Suffixes below which anybody can register a name, so that `*.suffix` would be no restriction.

A small extract of publicsuffix.org: the ones that people write by mistake. The list is a help, not a fence:
every one-label suffix is refused without it (`policy/match.py`).
"""

from __future__ import annotations

_TEXT = """
ac.jp ac.nz ac.uk ac.za co.at co.id co.il co.in co.jp co.ke co.kr co.nz co.th co.uk co.za com.ar
com.au com.bd com.br com.cn com.co com.eg com.hk com.mx com.my com.ng com.pe com.ph com.pk com.pl
com.sa com.sg com.tr com.tw com.ua com.ve com.vn edu.au edu.cn edu.in gob.mx gov.au gov.br gov.cn
gov.in gov.uk gov.za go.jp go.kr in.ua ltd.uk me.uk ne.jp net.au net.br net.cn net.nz net.uk net.za
nhs.uk nom.br or.at or.jp or.kr org.ar org.au org.br org.cn org.hk org.il org.in org.mx org.nz
org.pl org.tr org.tw org.uk org.za plc.uk sch.uk uk.com us.com eu.com de.com gb.net amazonaws.com
s3.amazonaws.com s3-website.amazonaws.com execute-api.amazonaws.com elb.amazonaws.com
elasticbeanstalk.com cloudfront.net awsapprunner.com lambda-url.us-east-1.on.aws on.aws
amplifyapp.com appspot.com run.app a.run.app web.app firebaseapp.com firebaseio.com
cloudfunctions.net googleapis.com storage.googleapis.com googleusercontent.com blogspot.com
withgoogle.com azurewebsites.net azurestaticapps.net cloudapp.net cloudapp.azure.com azurefd.net
azureedge.net windows.net blob.core.windows.net web.core.windows.net azure-api.net
trafficmanager.net github.io githubusercontent.com gitlab.io bitbucket.io pages.dev workers.dev
r2.dev r2.cloudflarestorage.com trycloudflare.com cloudflare.net vercel.app now.sh netlify.app
netlify.com herokuapp.com herokudns.com onrender.com render.com fly.dev fly.io railway.app
up.railway.app deno.dev deno.net val.run surge.sh replit.dev replit.app repl.co glitch.me
codesandbox.io csb.app stackblitz.io gitpod.io github.dev app.github.dev devtunnels.ms ngrok.io
ngrok.app ngrok.dev ngrok-free.app loca.lt localhost.run serveo.net digitaloceanspaces.com
ondigitalocean.app backblazeb2.com wasabisys.com linodeobjects.com scw.cloud readthedocs.io hf.space
huggingface.tech supabase.co myshopify.com wordpress.com webflow.io wixsite.com duckdns.org
dyndns.org no-ip.org ddns.net dynu.net nip.io sslip.io xip.io localtest.me lvh.me requestbin.net
pipedream.net webhook.site interact.sh oast.pro oast.live oast.site oast.online oast.fun oast.me
burpcollaborator.net in-addr.arpa ip6.arpa
"""
WELL_KNOWN_PUBLIC_SUFFIXES = frozenset(_TEXT.split())
